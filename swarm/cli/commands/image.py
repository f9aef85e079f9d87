"""The image commands: images of the node that answers."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

import click

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.cli.go_switches import GoGroup
from swarm.cli.options import OBJECT_FORMAT_HELP, Json, connect, filters_of, for_each, inspect_each, listing
from swarm.cli.render import render
from swarm.cli.rows import IMAGES, image_rows
from swarm.cli.service_values import with_tag


@click.group(cls=GoGroup)
def image() -> None:
    """Manage images of this node."""


@image.command(epilog="Example: swarm image load -i web.tar")
@click.option("-i", "--input", "source", type=click.Path(), help="Archive to read (default: stdin)")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the output")
@click.pass_context
def load(ctx: click.Context, /, source: str | None, quiet: bool) -> None:
    """Load an image from an archive (docker save or OCI layout)."""
    if source is None and sys.stdin.isatty():
        raise SwarmError("requested load from stdin, but stdin is empty: name the archive with -i")
    with connect(ctx) as client, _archive(source) as body:
        for record in client.json_lines("POST", "/images/load", body, quiet=True):
            if not quiet:
                click.echo(record.get("stream", ""), nl=False)


def _archive(source: str | None) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdin.buffer) if source is None else open(source, "rb")


@image.command(epilog="Example: swarm image pull nginx:1.27")
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("-q", "--quiet", is_flag=True, help="Only print the image's name")
@click.pass_context
def pull(ctx: click.Context, /, name: str, quiet: bool) -> None:
    """Download an image from a registry."""
    tagged = with_tag(name)
    if tagged != name and not quiet:
        click.echo("Using default tag: latest")
    if "@" in tagged:
        repository, _, tag = tagged.partition("@")
    else:
        repository, _, tag = tagged.rpartition(":")
    with connect(ctx) as client:
        for record in client.json_lines("POST", "/images/create", fromImage=repository, tag=tag):
            if not quiet and record.get("status") and not record.get("progressDetail"):
                prefix = f"{record['id']}: " if record.get("id") else ""
                click.echo(prefix + record["status"])
    click.echo(tagged)


@image.command()
@listing(quiet="Only show image IDs")
@click.pass_context
def ls(
    ctx: click.Context,
    /,
    filters: tuple[tuple[str, str], ...],
    template: str,
    **flags: bool,
) -> None:
    """List images."""
    with connect(ctx) as client:
        images = client.get("/images/json", filters=filters_of(filters))
    rows = image_rows(images, SystemClock().now(), trunc=not flags["no_trunc"])
    click.echo(render(IMAGES, rows, template=template, quiet=flags["quiet"]), nl=False)


@image.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Remove it also when it is in use by name")
@click.pass_context
def rm(ctx: click.Context, /, names: tuple[str, ...], force: bool) -> None:
    """Remove images."""
    with connect(ctx) as client:

        def remove(name: str) -> None:
            for entry in client.delete(f"/images/{name}", force=force or None) or ():
                for what, id in entry.items():
                    click.echo(f"{what}: {id}")

        for_each(ctx, names, remove)


@image.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.pass_context
def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str) -> None:
    """Show images in detail."""
    with connect(ctx) as client:

        def find(name: str) -> Json:
            found: Any = client.get(f"/images/{name}/json")
            assert isinstance(found, dict)
            return found

        inspect_each(ctx, names, find, template)
