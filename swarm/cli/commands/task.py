"""The task commands."""

from __future__ import annotations

import click

from swarm.cli.go_switches import GoGroup
from swarm.cli.options import OBJECT_FORMAT_HELP, connect, inspect_each


@click.group(cls=GoGroup)
def task() -> None:
    """Look at tasks."""


@task.command()
@click.argument("names", metavar="TASK...", nargs=-1, required=True)
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.pass_context
def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str) -> None:
    """Show tasks in detail: where one runs, in which state it is and why."""
    with connect(ctx) as client:
        inspect_each(ctx, names, lambda name: client.get(f"/tasks/{name}"), template)
