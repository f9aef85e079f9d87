"""info and version."""

from __future__ import annotations

import json
import platform

import click

from swarm import __version__
from swarm.api.client import CannotConnect
from swarm.cli.inspect import render_object
from swarm.cli.lazy import LazyGroup
from swarm.cli.options import OBJECT_FORMAT_HELP, connect
from swarm.cli.system_text import info_text, version_text

system = LazyGroup(
    "system",
    table={
        "backup": ("swarm.cli.commands.backup:backup", "Save the swarm's state, encrypted"),
        "restore": ("swarm.cli.commands.backup:restore", "Start the swarm of a backup again, on this host"),
        "info": ("swarm.cli.commands.upkeep:info", "Show how this node's store, runtime and kernel are"),
        "repair": ("swarm.cli.commands.upkeep:repair", "Replace this manager's damaged part of the store"),
        "rotate-data-key": (
            "swarm.cli.commands.upkeep:rotate_data_key",
            "Seal everything stored with a new key",
        ),
    },
    help="Look after the swarm's store and this node.",
)


@click.command()
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.pass_context
def info(ctx: click.Context, /, template: str) -> None:
    """Display what this node knows of itself and the swarm."""
    with connect(ctx) as client:
        found = client.get("/info")
    if template == "json":
        click.echo(json.dumps(found, ensure_ascii=False, separators=(",", ":")))
    elif template:
        click.echo(render_object(template, found))
    else:
        click.echo(info_text(found, __version__), nl=False)


@click.command()
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.pass_context
def version(ctx: click.Context, /, template: str) -> None:
    """Show the versions of the command and the daemon."""
    server, unreachable = None, None
    try:
        with connect(ctx) as client:
            server = client.get("/version")
    except CannotConnect as error:
        unreachable = error
    machine = f"{platform.system().lower()}/{platform.machine()}"
    if template:
        both = {"Client": {"Version": __version__, "ApiVersion": "1.50"}, "Server": server}
        text = (
            json.dumps(both, separators=(",", ":")) if template == "json" else render_object(template, both)
        )
        click.echo(text)
    else:
        click.echo(version_text(__version__, machine, server), nl=False)
    if unreachable is not None:
        raise unreachable
