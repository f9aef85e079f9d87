"""The secret and config commands: the same ones twice."""

from __future__ import annotations

import base64

import click

from swarm.api.client import JsonValue
from swarm.base.clock import SystemClock
from swarm.base.errors import InvalidArgument
from swarm.cli.commands.payload_versions import add_versions
from swarm.cli.go_switches import GoGroup
from swarm.cli.options import (
    OBJECT_FORMAT_HELP,
    Json,
    Parsed,
    connect,
    filters_of,
    for_each,
    inspect_each,
    listing,
)
from swarm.cli.payloads import TABLES, payload_rows, pretty_payload, read_data
from swarm.cli.render import render
from swarm.cli.service_values import parse_label

_LABEL = Parsed("key=value", parse_label)


@click.group(cls=GoGroup)
def secret() -> None:
    """Manage secrets: what containers get to see and nobody else."""


@click.group(cls=GoGroup)
def config() -> None:
    """Manage configs: files for containers that need not be kept secret."""


def _create(ctx: click.Context, kind: str, name: str, data: bytes, **options: JsonValue) -> None:
    spec: Json = {"Name": name, "Labels": dict(options["labels"])}
    if data:
        spec["Data"] = base64.b64encode(data).decode()
    if options.get("driver"):
        spec["Driver"] = {"Name": options["driver"]}
    if options.get("template_driver"):
        spec["Templating"] = {"Name": options["template_driver"]}
    with connect(ctx) as client:
        click.echo(client.post(f"/{kind.lower()}s/create", spec)["ID"])


@secret.command(
    "create", epilog="Example: openssl rand -base64 20 | swarm secret create --label app=db db_pass -"
)
@click.argument("name", metavar="SECRET")
@click.argument("source", metavar="[file|-]", required=False)
@click.option("-l", "--label", "labels", type=_LABEL, multiple=True, help="Label, as KEY=VALUE")
@click.option("-d", "--driver", default="", help="Whence the data comes, instead of a file")
@click.option("--template-driver", default="", help="golang: the data is a template")
@click.pass_context
def create_secret(ctx: click.Context, /, name: str, source: str | None, **options: JsonValue) -> None:
    """Create a secret from a file, or from standard input."""
    if options["driver"] and source is not None:
        raise InvalidArgument("when using secret driver secret data must be empty")
    if not options["driver"] and source is None:
        raise InvalidArgument("the secret's data is missing: name a file, or - for standard input")
    _create(ctx, "Secret", name, read_data(source) if source is not None else b"", **options)


@config.command("create", epilog="Example: swarm config create nginx.conf ./nginx.conf")
@click.argument("name", metavar="CONFIG")
@click.argument("source", metavar="file|-")
@click.option("-l", "--label", "labels", type=_LABEL, multiple=True, help="Label, as KEY=VALUE")
@click.option("--template-driver", default="", help="golang: the data is a template")
@click.pass_context
def create_config(ctx: click.Context, /, name: str, source: str, **options: JsonValue) -> None:
    """Create a config from a file, or from standard input."""
    _create(ctx, "Config", name, read_data(source), **options)


def _add_rest(group: click.Group, kind: str) -> None:
    """`ls`, `inspect` and `rm`."""
    word = kind.lower()
    path = f"/{word}s"

    @group.command(help=f"List {word}s.")
    @listing(no_trunc=False)
    @click.pass_context
    def ls(ctx: click.Context, /, filters: tuple[tuple[str, str], ...], template: str, quiet: bool) -> None:
        with connect(ctx) as client:
            found = client.get(path, filters=filters_of(filters))
        rows = payload_rows(kind, found, SystemClock().now())
        click.echo(render(TABLES[kind], rows, template=template, quiet=quiet), nl=False)

    @group.command(help=f"Show {word}s in detail.")
    @click.argument("names", metavar=f"{kind.upper()}...", nargs=-1, required=True)
    @click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
    @click.option("--pretty", is_flag=True, help="Print in a form for people")
    @click.pass_context
    def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str, pretty: bool) -> None:
        if pretty and template:
            raise InvalidArgument("--format is incompatible with human friendly format")
        with connect(ctx) as client:
            if not pretty:
                inspect_each(ctx, names, lambda name: client.get(f"{path}/{name}"), template)
                return
            for_each(ctx, names, lambda name: click.echo(pretty_payload(kind, client.get(f"{path}/{name}"))))

    @group.command(help=f"Remove {word}s; one that a service uses stays.")
    @click.argument("names", metavar=f"{kind.upper()}...", nargs=-1, required=True)
    @click.pass_context
    def rm(ctx: click.Context, /, names: tuple[str, ...]) -> None:
        with connect(ctx) as client:

            def remove(name: str) -> None:
                client.delete(f"{path}/{name}")
                click.echo(name)

            for_each(ctx, names, remove)


add_versions(secret, "Secret")
add_versions(config, "Config")
_add_rest(secret, "Secret")
_add_rest(config, "Config")
