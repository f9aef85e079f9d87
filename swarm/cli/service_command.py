"""`service create` and `service update` as click commands, made from the table of flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from swarm.cli.options import refuse_flag
from swarm.cli.service_edit import Json, edit_capabilities, edit_health, edit_log_driver
from swarm.cli.service_flags import AS_ON_CREATE, FLAGS, GROUPS, REFUSED, SWITCH, Flag

_MARK = "* "
_FOOTER = (
    "* Docker's client has no such flag, but can set the same as a label: see docs/services.md. "
    "A switch is turned off with =false."
)


class GroupedOption(click.Option):
    """An option that knows its place in the help."""

    group = ""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Without the other half of a switch: the footer tells how one is turned off."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0].partition(" / ")[0], record[1])


class ServiceCommand(click.Command):
    """Help by group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {title: [] for title, _ in GROUPS}
        for param in self.params:
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, GroupedOption):
                records[param.group].append(record)
        for title, rows in records.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text(_FOOTER)
        super().format_epilog(ctx, formatter)


def add_flags(command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function the options of `create` or `update`; it gets those that the user wrote, by name."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        refused = [_refused(name, reason) for name, reason in REFUSED[command].items()]
        for option in reversed([*_all_options(command), *refused]):
            # Where click keeps a function's parameters until a command is made of it.
            function.__dict__.setdefault("__click_params__", []).append(option)
        return function

    return decorate


def _all_options(command: str) -> Iterator[GroupedOption]:
    for title, flags in GROUPS:
        for flag in flags:
            if flag.on in ("", command):
                for option in _options(flag, command):
                    option.group = title
                    yield option


def _options(flag: Flag, command: str) -> Iterator[GroupedOption]:
    is_list_of_update = flag.many and command == "update" and flag.name not in AS_ON_CREATE
    if not is_list_of_update:
        yield _option(flag.name, flag, short=flag.short)
        return
    yield _option(f"{flag.name}-add", flag)
    metavar = "KEY" if flag.removed is None else None
    yield GroupedOption(
        _names(f"{flag.name}-rm"), type=flag.removed, multiple=True, metavar=metavar, help="Remove it"
    )


def _option(name: str, flag: Flag, *, short: str = "") -> GroupedOption:
    text = (_MARK if flag.ours else "") + flag.help
    if flag.type == SWITCH:
        return GroupedOption(_names(name, short=short, is_switch=True), default=None, is_flag=True, help=text)
    return GroupedOption(
        _names(name, short=short), type=flag.type, multiple=flag.many, metavar=flag.metavar, help=text
    )


def _refused(name: str, reason: str) -> GroupedOption:
    return GroupedOption(
        _names(name), multiple=True, hidden=True, expose_value=False, callback=refuse_flag(reason)
    )


def _names(name: str, *, short: str = "", is_switch: bool = False) -> list[str]:
    """What click is told that the option is called, and the parameter's name."""
    off = f"/--no-{name}" if is_switch and not name.startswith("no-") else ""
    return [*([f"-{short}"] if short else []), f"--{name}{off}", _parameter(name)]


def _parameter(name: str) -> str:
    return name.replace("-", "_")


def given_flags(values: Mapping[str, Any]) -> Json:
    """What the user wrote, under the flags' names; lists without `-add`."""
    given = {}
    for parameter, value in values.items():
        if value is not None and value != ():
            name = parameter.replace("_", "-")
            given[name if name in FLAGS else name.removesuffix("-add")] = value
    return given


def edit_spec(spec: Json, given: Json) -> None:
    """Change `spec` as the flags say; the service's mode is left to the command.

    Raises:
        InvalidArgument: flags that contradict each other.
    """
    for flag in FLAGS.values():
        added, removed = given.get(flag.name), given.get(f"{flag.name}-rm", ())
        if flag.name == "publish" and added is not None:
            added = [port for group in added for port in group]
        if flag.name == "publish":
            removed = [matches for group in removed for matches in group]
        flag.edit(spec, added, removed)
    edit_capabilities(spec, given.get("cap-add", ()), given.get("cap-drop", ()))
    edit_health(spec, given)
    edit_log_driver(spec, given.get("log-driver"), given.get("log-opt", ()))
    if given.get("force"):
        spec["TaskTemplate"]["ForceUpdate"] = spec["TaskTemplate"].get("ForceUpdate", 0) + 1
