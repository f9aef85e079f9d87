"""service update and service rollback."""

from __future__ import annotations

import os

import click

from swarm.api.client import ApiError, Client, JsonValue
from swarm.base.errors import InvalidArgument
from swarm.cli.again import again
from swarm.cli.options import connect, missing
from swarm.cli.payloads import resolve_references
from swarm.cli.service_command import ServiceCommand, add_flags, edit_spec, given_flags
from swarm.cli.service_edit import Json, edit_replicas
from swarm.cli.service_networks import resolve_change
from swarm.cli.service_values import resolve_env, with_tag

_HOW_TO_WAIT = frozenset({"detach", "quiet"})


@click.command(
    cls=ServiceCommand,
    epilog="Example: swarm service update --image nginx:1.27 --update-order start-first web",
)
@click.argument("name", metavar="SERVICE")
@add_flags("update")
@click.pass_context
def update(ctx: click.Context, /, name: str, **flags: JsonValue) -> None:
    """Change a service; its tasks are replaced step by step where that is needed."""
    given = given_flags(flags)
    for alone in ("rollback", "resume"):
        if given.get(alone) and given.keys() - _HOW_TO_WAIT - {alone}:
            raise InvalidArgument(f"other flags may not be combined with --{alone}")
    with connect(ctx) as client:
        if given.get("rollback") or given.get("resume"):
            service = find_service(client, name)
            query = {"rollback": "previous"} if given.get("rollback") else {"resume": True}
            _post(client, service, {}, **query)
        else:
            service = again(lambda: _change(client, name, given))
        _finish(client, service["ID"], name, given)


@click.command()
@click.argument("name", metavar="SERVICE")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until the service has converged")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.pass_context
def rollback(ctx: click.Context, /, name: str, **flags: bool) -> None:
    """Go back to the spec that the service had before its last update."""
    with connect(ctx) as client:
        service = find_service(client, name)
        _post(client, service, {}, rollback="previous")
        _finish(client, service["ID"], name, {**flags, "rollback": True})


def find_service(client: Client, name: str) -> Json:
    try:
        found = client.get(f"/services/{name}")
    except ApiError as error:
        raise missing("service", error, name) from None
    assert isinstance(found, dict)
    return found


def _change(client: Client, name: str, given: Json) -> Json:
    service = find_service(client, name)
    headers = _edit(client, service["Spec"], given)
    _post(client, service, headers)
    return service


def _edit(client: Client, spec: Json, given: Json) -> dict[str, str]:
    """Change the spec; returns the headers to post it with."""
    if "env" in given:
        given = given | {"env": resolve_env(given["env"], os.environ)}
    given = resolve_change(client, spec, given)
    edit_replicas(spec["Mode"], given)
    container = spec["TaskTemplate"]["ContainerSpec"]
    if "image" in given:
        container["Image"] = with_tag(given["image"])
        # The platforms are the old image's.
        (spec["TaskTemplate"].get("Placement") or {}).pop("Platforms", None)
    edit_spec(spec, given)
    resolve_references(client, spec)
    headers: dict[str, str] = {}
    if given.get("with-registry-auth"):
        from swarm.cli.registry import auth_header

        headers = auth_header(container["Image"])
    if "image" in given and not given.get("no-resolve-image"):
        from swarm.cli.registry import pin_image

        pin_image(client, spec, headers)
    return headers


def _post(client: Client, service: Json, headers: dict[str, str], **query: object) -> None:
    if not headers:
        query["registryAuthFrom"] = "spec"
    version = service["Version"]["Index"]
    path = f"/services/{service['ID']}/update"
    answer = client.post(path, service["Spec"], headers=headers, version=version, **query)
    for warning in (answer or {}).get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)


def _finish(client: Client, service_id: str, name: str, given: Json) -> None:
    click.echo(name)
    if not given.get("detach"):
        from swarm.cli.progress import watch_service

        quiet, is_rollback = bool(given.get("quiet")), bool(given.get("rollback"))
        watch_service(client, service_id, quiet=quiet, is_rollback=is_rollback)
