"""system info, system repair and system rotate-data-key."""

from __future__ import annotations

import json
import time

import click

from swarm.cli.options import OBJECT_FORMAT_HELP, connect

_POLL_S = 0.2


@click.command()
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
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
    with connect(ctx) as client:
        for record in client.json_lines("POST", "/system/repair"):
            click.echo(f"{record['status']} ...")
    click.echo("The store of this manager has been rebuilt from the other managers.")


@click.command("rotate-data-key")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until everything is sealed with the new key")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.pass_context
def rotate_data_key(ctx: click.Context, /, detach: bool, quiet: bool) -> None:
    """Replace the key that everything stored is sealed with, while everything runs on.

    A rotation that is under way goes on: the command then shows how far it is.
    """
    from swarm.cli.upkeep_text import rotation_lines

    shown: set[str] = set()
    with connect(ctx) as client:
        client.post("/system/datakey/rotate")
        try:
            while not detach:
                found = client.get("/system/datakey")
                for line in rotation_lines(found):
                    if line not in shown and not quiet:
                        click.echo(line)
                    shown.add(line)
                if found["State"] == "none":
                    return
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            click.echo("\nOperation continuing in background.")
            click.echo("Use `swarm system rotate-data-key` to see how far it is.")
