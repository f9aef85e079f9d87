"""Versions of secrets and configs: the same commands twice."""

from __future__ import annotations

import base64

import click

from swarm.base.clock import SystemClock
from swarm.cli.options import FORMAT_HELP, connect
from swarm.cli.payloads import VERSIONS, read_data, version_rows
from swarm.cli.render import render


def add_versions(group: click.Group, kind: str) -> None:
    """`update`, `rollback`, `history` and `prune`."""
    word = kind.lower()
    path = f"/{word}s"

    @group.command(help=f"Give a {word} a new version; services that follow it are updated by their policy.")
    @click.argument("name", metavar=kind.upper())
    @click.argument("source", metavar="file|-")
    @click.pass_context
    def update(ctx: click.Context, /, name: str, source: str) -> None:
        data = base64.b64encode(read_data(source)).decode()
        with connect(ctx) as client:
            click.echo(client.post(f"{path}/{name}/versions", {"Data": data})["Version"])

    @group.command(help=f"Go back to the {word}'s version before, or to another one.")
    @click.argument("name", metavar=kind.upper())
    @click.option("--to", default=0, metavar="VERSION", help="The version to make current")
    @click.pass_context
    def rollback(ctx: click.Context, /, name: str, to: int) -> None:
        with connect(ctx) as client:
            click.echo(client.post(f"{path}/{name}/rollback", to=to or "")["Version"])

    @group.command(help=f"List the versions of a {word}, and which tasks have them.")
    @click.argument("name", metavar=kind.upper())
    @click.option("--format", "template", default="", metavar="FORMAT", help=FORMAT_HELP)
    @click.pass_context
    def history(ctx: click.Context, /, name: str, template: str) -> None:
        with connect(ctx) as client:
            found = client.get(f"{path}/{name}/versions")
        rows = version_rows(found, SystemClock().now())
        click.echo(render(VERSIONS, rows, template=template, quiet=False), nl=False)

    @group.command(help=f"Remove the versions of {word}s that are not current and that nothing uses.")
    @click.argument("names", metavar=f"[{kind.upper()}...]", nargs=-1)
    @click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation")
    @click.pass_context
    def prune(ctx: click.Context, /, names: tuple[str, ...], force: bool) -> None:
        if not force:
            click.echo(
                f"WARNING! This will remove all versions of {word}s that are not current and not used."
            )
            click.confirm("Are you sure you want to continue?", abort=True)
        with connect(ctx) as client:
            chosen = names or tuple(item["Spec"]["Name"] for item in client.get(path))
            for name in chosen:
                for number in client.post(f"{path}/{name}/versions/prune")["VersionsDeleted"]:
                    click.echo(f"{name} {number}")
