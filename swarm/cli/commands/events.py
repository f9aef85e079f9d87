"""events: what happens in the cluster, one line each, as it happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from swarm.base.clock import SystemClock
from swarm.base.errors import InvalidArgument
from swarm.cli.options import FILTER, OBJECT_FORMAT_HELP, connect, filters_of
from swarm.cli.values import unix_time

Json = dict[str, Any]


@click.command(epilog="Example: swarm events --since 10m --filter service=web --filter type=task")
@click.option("-f", "--filter", "filters", type=FILTER, multiple=True, help="Filter, as KEY=VALUE")
@click.option("--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.option("--since", default="", metavar="TIME", help="Begin there: 2026-01-02T13:23:37Z, or an age: 42m")
@click.option("--until", default="", metavar="TIME", help="End there")
@click.option("--after", default="", metavar="REVISION", help="Go on after the event that had this revision")
@click.pass_context
def events(
    ctx: click.Context, /, filters: tuple[tuple[str, str], ...], template: str, after: str, **times: str
) -> None:
    """Show what happens: services, nodes, tasks, networks and the decisions about them.

    `--format json` shows each event's `revision`: any manager goes on after it with --after.
    """
    now = SystemClock().now()
    since, until = (_checked_time(name, times[name], now) for name in ("since", "until"))
    show = _printer(template)
    with connect(ctx) as client:
        query: dict[str, object] = {"filters": filters_of(filters), "since": since, "until": until}
        with client.stream("GET", "/events", None, None, **query, after=after or None) as answer:
            while line := answer.readline(1 << 20):
                click.echo(show(line))


def _checked_time(name: str, text: str, now: datetime) -> str | None:
    try:
        return unix_time(text, now) if text else None
    except ValueError as error:
        raise InvalidArgument(f'invalid argument "{text}" for "--{name}" flag: {error}') from None


def _printer(template: str) -> Callable[[bytes], str]:
    if not template:
        return lambda line: pretty(json.loads(line))
    if template == "json":
        return lambda line: line.decode().rstrip("\n")
    from swarm.cli.inspect import render_object

    return lambda line: render_object(template, _go_names(json.loads(line)))


def pretty(event: Json) -> str:
    """Docker's line: time, type, action, id, attributes by name."""
    seconds, nano = divmod(event["timeNano"], 1_000_000_000)
    text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nano:09d}Z"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
    text += f" {event['Type']} {event['Action']} {event['Actor']['ID']}"
    return f"{text} ({attributes})" if attributes else text


def _go_names(event: Json) -> Json:
    """As templates for Docker's client name them."""
    return {key[0].upper() + key[1:]: value for key, value in event.items()}
