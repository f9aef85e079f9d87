"""The container commands: containers of the node that answers."""

from __future__ import annotations

import click

from swarm.base.clock import SystemClock
from swarm.cli.go_switches import GoGroup
from swarm.cli.options import OBJECT_FORMAT_HELP, connect, filters_of, inspect_each, listing
from swarm.cli.render import render
from swarm.cli.rows import CONTAINERS, container_rows


@click.group(cls=GoGroup)
def container() -> None:
    """Look at containers of this node."""


@container.command()
@listing(quiet="Only display container IDs")
@click.option("-a", "--all", is_flag=True, help="Show all containers, not only running ones")
@click.pass_context
def ls(ctx: click.Context, /, filters: tuple[tuple[str, str], ...], template: str, **flags: bool) -> None:
    """List containers."""
    with connect(ctx) as client:
        found = client.get("/containers/json", all=flags["all"] or None, filters=filters_of(filters))
    rows = container_rows(found, SystemClock().now(), trunc=not flags["no_trunc"])
    click.echo(render(CONTAINERS, rows, template=template, quiet=flags["quiet"]), nl=False)


@container.command()
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.pass_context
def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str) -> None:
    """Show containers in detail."""
    with connect(ctx) as client:
        inspect_each(ctx, names, lambda name: client.get(f"/containers/{name}/json"), template)
