"""What commands share: value types for options, the listing options, filters, and a connected client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, TypeVar

import click

from swarm.api.client import ApiError, Client, JsonValue
from swarm.base.errors import InvalidArgument, SwarmError
from swarm.cli.values import parse_positive_duration

F = TypeVar("F", bound=Callable[..., Any])
Json = dict[str, Any]

RAFT = "is of Docker's own store: etcd, which is the store here, sees to its snapshots itself"
NO_EXTERNAL_CA = "is not supported: the managers issue certificates; swarm ca --rotate takes a root of yours"
FORMAT_HELP = "'table', 'table TEMPLATE', 'json', or a Go template"
OBJECT_FORMAT_HELP = "'json', or a Go template"


class Parsed(click.ParamType[JsonValue]):
    """An option whose text goes through `parse`; its ValueError becomes Docker's one-line message."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: JsonValue, param: click.Parameter | None, ctx: click.Context | None
    ) -> JsonValue:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            flag = ", ".join(sorted(param.opts, key=len)) if param is not None else self.name
            raise InvalidArgument(f'invalid argument "{value}" for "{flag}" flag: {error}') from None


def refuse_flag(reason: str) -> Callable[[click.Context, click.Parameter, JsonValue], None]:
    """The callback of an option that only exists to be refused: one of Docker's, by its name."""

    def refuse(ctx: click.Context, param: click.Parameter, value: JsonValue) -> None:
        if value:
            raise InvalidArgument(f"{param.opts[0]} {reason}")

    return refuse


def refused(reasons: Mapping[str, str]) -> Callable[[F], F]:
    """Options of Docker's, without the dashes, that a command refuses, and why."""

    def decorate(function: F) -> F:
        for name, reason in reasons.items():
            option = click.option(
                f"--{name}", multiple=True, hidden=True, expose_value=False, callback=refuse_flag(reason)
            )
            function = option(function)
        return function

    return decorate


def parse_filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


FILTER = Parsed("filter", parse_filter)
TIMEOUT = Parsed("duration", lambda text: parse_positive_duration(text) / 1e9 or inf)
"""Seconds; `0` is for ever."""


def filters_of(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]] | None:
    """The `filters` query of the API, or None when there is nothing to filter."""
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found or None


def listing(*, no_trunc: bool = True, quiet: str = "Only display IDs") -> Callable[[F], F]:
    """--filter, --format, --quiet and, where it makes sense, --no-trunc."""
    options = [
        click.option("-f", "--filter", "filters", type=FILTER, multiple=True, help="Filter, as KEY=VALUE"),
        click.option("--format", "template", default="", metavar="FORMAT", help=FORMAT_HELP),
        click.option("-q", "--quiet", is_flag=True, help=quiet),
    ]
    if no_trunc:
        options.append(click.option("--no-trunc", is_flag=True, help="Don't truncate output"))

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@contextmanager
def connect(ctx: click.Context) -> Iterator[Client]:
    """A client of the daemon that -H, SWARM_HOST or the default names."""
    with Client(ctx.obj) as client:
        yield client


def for_each(ctx: click.Context, names: Sequence[str], act: Callable[[str], None]) -> None:
    """Do `act` for every name; an error goes to stderr, the others still get their turn, the status is 1."""
    failed = False
    for name in names:
        try:
            act(name)
        except SwarmError as error:
            click.echo(str(error), err=True)
            failed = True
    if failed:
        ctx.exit(1)


def inspect_each(
    ctx: click.Context, names: Sequence[str], find: Callable[[str], JsonValue], template: str
) -> None:
    """Print the objects as an indented JSON list, or each by `--format`; then report what is missing."""
    found, errors = [], []
    for name in names:
        try:
            found.append(find(name))
        except SwarmError as error:
            errors.append(str(error))
    if not template:
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))
    else:
        from swarm.cli.inspect import render_object

        for item in found:
            click.echo(render_object("{{json .}}" if template == "json" else template, item))
    for text in errors:
        click.echo(text, err=True)
    if errors:
        ctx.exit(1)


def missing(kind: str, error: ApiError, name: str) -> SwarmError:
    """Docker's sentence for an object that is not there; any other refusal stays as it is."""
    return SwarmError(f"no such {kind}: {name}") if error.status == 404 else error
