"""The network commands."""

from __future__ import annotations

import click

from swarm.cli.options import FORMAT_HELP, connect, filters_of, inspect_each, listing
from swarm.cli.render import render
from swarm.cli.rows import NETWORKS, network_rows


@click.group()
def network() -> None:
    """Look at networks."""


@network.command()
@listing(quiet="Only display network IDs")
@click.pass_context
def ls(ctx: click.Context, /, filters: tuple[tuple[str, str], ...], template: str, **flags: bool) -> None:
    """List networks."""
    with connect(ctx) as client:
        found = client.get("/networks", filters=filters_of(filters))
    rows = network_rows(found, trunc=not flags["no_trunc"])
    click.echo(render(NETWORKS, rows, template=template, quiet=flags["quiet"]), nl=False)


@network.command()
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=FORMAT_HELP)
@click.pass_context
def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str) -> None:
    """Show networks in detail."""
    with connect(ctx) as client:
        inspect_each(ctx, names, lambda name: client.get(f"/networks/{name}"), template)
