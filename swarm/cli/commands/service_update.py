"""service update and service rollback."""

from __future__ import annotations

import os

import click

from swarm.api.client import ApiError, Client, JsonValue
from swarm.base.errors import InvalidArgument
from swarm.cli.options import connect, missing
from swarm.cli.payloads import resolve_references
from swarm.cli.service_command import ServiceCommand, add_flags, edit_spec, given_flags
from swarm.cli.service_edit import Json, edit_replicas
from swarm.cli.service_networks import resolve_change
from swarm.cli.service_values import resolve_env, with_tag
from swarm.cli.updating import Seen

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
        service = find_service(client, name)
        seen = _seen(service)
        if given.get("rollback") or given.get("resume"):
            query = {"rollback": "previous"} if given.get("rollback") else {"resume": True}
            _post(client, seen, service["Spec"], {}, **query)
        else:
            headers = _edit(client, service["Spec"], given)
            _post(client, seen, service["Spec"], headers)
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
        _post(client, _seen(service), service["Spec"], {}, rollback="previous")
        _finish(client, service["ID"], name, {**flags, "rollback": True})


def find_service(client: Client, name: str) -> Json:
    try:
        found = client.get(f"/services/{name}")
    except ApiError as error:
        raise missing("service", error, name) from None
    assert isinstance(found, dict)
    return found


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

        for text in pin_image(client, spec, headers):
            click.echo(text, err=True)
    return headers


def _seen(service: Json) -> Seen:
    return Seen.of(f"/services/{service['ID']}", service)


def _post(client: Client, seen: Seen, spec: Json, headers: dict[str, str], **query: object) -> None:
    if not headers:
        query["registryAuthFrom"] = "spec"
    answer = seen.update(client, spec, headers, **query)
    for warning in (answer or {}).get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)


def _finish(client: Client, service_id: str, name: str, given: Json) -> None:
    click.echo(name)
    if not given.get("detach"):
        from swarm.cli.progress import watch_service

        quiet, is_rollback = bool(given.get("quiet")), bool(given.get("rollback"))
        watch_service(client, service_id, quiet=quiet, is_rollback=is_rollback)
