"""service create."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from swarm.api.client import JsonValue
from swarm.base.errors import InvalidArgument
from swarm.cli.options import connect
from swarm.cli.payloads import resolve_references
from swarm.cli.service_command import ServiceCommand, add_flags, edit_spec, given_flags
from swarm.cli.service_edit import Json, new_mode
from swarm.cli.service_networks import resolve_attachments
from swarm.cli.service_values import parse_env_file, resolve_env, with_tag


@click.command(
    cls=ServiceCommand,
    context_settings={"allow_interspersed_args": False},
    epilog="Example: swarm service create --name web --replicas 5 -p 8080:80 nginx",
)
@click.argument("image", metavar="IMAGE")
@click.argument("arguments", metavar="[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@add_flags("create")
@click.pass_context
def create(ctx: click.Context, /, image: str, arguments: tuple[str, ...], **flags: JsonValue) -> None:
    """Create a new service. Options go before IMAGE; what follows it is the container's command."""
    given = given_flags(flags)
    spec = new_spec(image, arguments, given)
    with connect(ctx) as client:
        resolve_references(client, spec)
        resolve_attachments(client, spec)
        headers: dict[str, str] = {}
        if given.get("with-registry-auth"):
            from swarm.cli.registry import auth_header

            headers = auth_header(image)
        warnings: list[str] = []
        if not given.get("no-resolve-image"):
            from swarm.cli.registry import pin_image

            warnings = pin_image(client, spec, headers)
        created = client.post("/services/create", spec, headers=headers)
        for text in (*warnings, *(f"WARNING: {warning}" for warning in created.get("Warnings") or ())):
            click.echo(text, err=True)
        click.echo(created["ID"])
        if not given.get("detach"):
            from swarm.cli.progress import watch_service

            watch_service(client, created["ID"], quiet=bool(given.get("quiet")))


def new_spec(image: str, arguments: Sequence[str], given: Json) -> Json:
    """The spec to post. Raises InvalidArgument for flags that contradict each other."""
    spec: Json = {
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": with_tag(image)},
            "Resources": {"Limits": {}, "Reservations": {}},
            "Placement": {},
            "ForceUpdate": 0,
        },
        "Mode": new_mode(given.get("mode", "replicated"), given),
        "EndpointSpec": {"Mode": "vip"},
    }
    if arguments:
        spec["TaskTemplate"]["ContainerSpec"]["Args"] = list(arguments)
    if "env" in given or "env-file" in given:
        given = given | {"env": _environment(given.get("env-file", ()), given.get("env", ()))}
    edit_spec(spec, given)
    return spec


def _environment(files: Sequence[str], items: Sequence[str]) -> list[str]:
    """Those on the command line win; a file's `KEY` that the client does not have says nothing."""
    found: list[str] = []
    for name in files:
        with open(name, encoding="utf-8") as lines:
            try:
                found += parse_env_file(lines, name)
            except ValueError as error:
                raise InvalidArgument(str(error)) from None
    of_files = [item for item in resolve_env(found, os.environ) if "=" in item]
    return of_files + resolve_env(items, os.environ)
