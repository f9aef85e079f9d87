"""Switches as in Go, `--init=false`, `--detach=true`: arguments in, arguments as click wants them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from swarm.base.errors import InvalidArgument


class GoGroup(click.Group):
    """A group whose commands read switches so."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is None or isinstance(command, click.Group):
            return name, command, rest
        return name, command, list(plain_switches(command, rest))


def plain_switches(command: click.Command, args: Sequence[str]) -> Iterator[str]:
    """The same arguments with each switch's value spelt as click spells it."""
    options = {name: p for p in command.params for name in p.opts if isinstance(p, click.Option)}
    stops_early = not command.context_settings.get("allow_interspersed_args", True)
    rest = iter(args)
    for argument in rest:
        name, equals, value = argument.partition("=")
        option = options.get(name)
        if option is not None and option.is_flag and equals:
            yield from _switch(option, value)
            continue
        yield argument
        if argument == "--" or (not argument.startswith("-") and stops_early):
            break
        if option is not None and not option.is_flag and not equals:
            yield from [value for value in [next(rest, None)] if value is not None]
    yield from rest


def _switch(option: click.Option, value: str) -> list[str]:
    """False is what a switch is without being given, except for one that has an opposite."""
    if value.lower() in ("true", "1", "t"):
        return [max(option.opts, key=len)]
    if value.lower() in ("false", "0", "f"):
        return option.secondary_opts[:1]
    raise InvalidArgument(
        f'invalid argument "{value}" for "{max(option.opts, key=len)}" flag: expected true or false'
    )
