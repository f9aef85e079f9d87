"""system info and system repair."""

from __future__ import annotations

import json

import click

from swarm.cli.options import FORMAT_HELP, connect

_REPAIR_S = 120.0


@click.command()
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=FORMAT_HELP)
@click.pass_context
def info(ctx: click.Context, /, template: str) -> None:
    """Show how this node's store, runtime, kernel and certificate are."""
    with connect(ctx) as client:
        found = client.get("/system/info")
    if template == "json":
        click.echo(json.dumps(found, ensure_ascii=False, separators=(",", ":")))
    elif template:
        from swarm.cli.inspect import render_object

        click.echo(render_object(template, found))
    else:
        from swarm.cli.upkeep_text import report_text

        click.echo(report_text(found), nl=False)


@click.command()
@click.pass_context
def repair(ctx: click.Context, /) -> None:
    """Replace this manager's damaged part of the store by a copy from the other managers."""
    from swarm.api.client import Client

    with Client(ctx.obj, timeout_s=_REPAIR_S) as client:
        client.post("/system/repair")
    click.echo("The store of this manager has been rebuilt from the other managers.")
