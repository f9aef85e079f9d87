"""A click command that reads switches as Go's flags do."""

from __future__ import annotations

from collections.abc import Iterator

import click

from swarm.base.errors import InvalidArgument


class GoCommand(click.Command):
    """`--init=false` for switches, as Go's flags have it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._plain_switches(ctx, args)))

    def _plain_switches(self, ctx: click.Context, args: list[str]) -> Iterator[str]:
        options = {name: p for p in self.params for name in p.opts if isinstance(p, click.Option)}
        rest = iter(args)
        for argument in rest:
            name, equals, value = argument.partition("=")
            option = options.get(name)
            if option is not None and option.is_flag and equals:
                yield _switch(option, value)
                continue
            yield argument
            if argument == "--" or (not argument.startswith("-") and not ctx.allow_interspersed_args):
                break
            if option is not None and not option.is_flag and not equals:
                yield from [value for value in [next(rest, None)] if value is not None]
        yield from rest


def _switch(option: click.Option, value: str) -> str:
    """`--init=true` and `--init=false` as click spells them."""
    if value.lower() in ("true", "1", "t"):
        return max(option.opts, key=len)
    if value.lower() in ("false", "0", "f") and option.secondary_opts:
        return option.secondary_opts[0]
    raise InvalidArgument(
        f'invalid argument "{value}" for "{max(option.opts, key=len)}" flag: expected true or false'
    )
