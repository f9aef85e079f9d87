"""service create."""

from __future__ import annotations

import os
from http import HTTPStatus

import click

from swarm.api.client import ApiError, Client, JsonValue
from swarm.base.errors import SwarmError
from swarm.cli.mounts import parse_mount
from swarm.cli.options import Parsed, connect
from swarm.cli.publish import parse_publish
from swarm.cli.service_spec import parse_command, parse_constraint, parse_env, parse_label, service_spec
from swarm.cli.values import (
    parse_bytes,
    parse_cpus,
    parse_integer,
    parse_positive_duration,
    parse_unsigned,
)

_CPUS = Parsed("decimal", parse_cpus)
_BYTES = Parsed("bytes", parse_bytes)
_DURATION = Parsed("duration", parse_positive_duration)
_UNSIGNED = Parsed("uint", parse_unsigned)
_LABEL = Parsed("key=value", parse_label)


_NO_SUCH_IMAGE = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: swarm service create --name web --replicas 5 -p 8080:80 nginx",
)
@click.argument("image", metavar="IMAGE")
@click.argument("arguments", metavar="[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", default="", help="Service name")
@click.option("--mode", default="replicated", show_default=True, help="replicated or global")
@click.option("--replicas", type=_UNSIGNED, help="Number of tasks (default 1)")
@click.option("--replicas-max-per-node", type=_UNSIGNED, help="Most tasks on one node (default no limit)")
@click.option(
    "-p", "--publish", multiple=True, type=Parsed("port", parse_publish), help="[PUBLISHED:]TARGET[/PROTOCOL]"
)
@click.option("-e", "--env", multiple=True, type=Parsed("env", parse_env), help="KEY=VALUE, or KEY of here")
@click.option("-l", "--label", multiple=True, type=_LABEL, help="Service label")
@click.option("--container-label", multiple=True, type=_LABEL, help="Container label")
@click.option(
    "--constraint",
    multiple=True,
    type=Parsed("constraint", parse_constraint),
    help="Where tasks may run, such as node.role==worker",
)
@click.option("--limit-cpu", type=_CPUS, help="Limit CPUs, such as 0.5")
@click.option("--limit-memory", type=_BYTES, help="Limit memory, such as 512m")
@click.option("--limit-pids", type=Parsed("int", parse_integer), help="Limit the number of processes")
@click.option("--reserve-cpu", type=_CPUS, help="Reserve CPUs")
@click.option("--reserve-memory", type=_BYTES, help="Reserve memory")
@click.option("--restart-condition", type=click.Choice(["none", "on-failure", "any"]), help="Default any")
@click.option("--restart-delay", type=_DURATION, help="Delay between restarts (default 5s)")
@click.option("--restart-max-attempts", type=_UNSIGNED, help="Restarts before giving up")
@click.option("-u", "--user", default="", help="NAME|UID[:GROUP|GID]")
@click.option("-w", "--workdir", default="", help="Working directory inside the container")
@click.option("--entrypoint", type=Parsed("command", parse_command), help="Replace the image's entrypoint")
@click.option(
    "--mount",
    multiple=True,
    type=Parsed("mount", parse_mount),
    help="type=volume|bind|tmpfs,source=...,target=...[,readonly]",
)
@click.option("--stop-grace-period", type=_DURATION, help="Wait before SIGKILL (default 10s)")
@click.option("--stop-signal", default="", help="Signal that stops the container")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until the service has converged")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.option("--no-resolve-image", is_flag=True, help="Do not ask the registry whether the image exists")
@click.pass_context
def create(
    ctx: click.Context,
    /,
    image: str,
    arguments: tuple[str, ...],
    detach: bool,
    quiet: bool,
    no_resolve_image: bool,
    **flags: JsonValue,
) -> None:
    """Create a new service. Options go before IMAGE; what follows it is the container's command."""
    spec = service_spec(image, arguments, flags, os.environ)
    with connect(ctx) as client:
        if not no_resolve_image:
            _check_image(client, spec["TaskTemplate"]["ContainerSpec"]["Image"])
        created = client.post("/services/create", spec)
        for warning in created.get("Warnings") or ():
            click.echo(f"WARNING: {warning}", err=True)
        click.echo(created["ID"])
        if not detach:
            from swarm.cli.progress import watch_service

            watch_service(client, created["ID"], quiet=quiet)


def _check_image(client: Client, image: str) -> None:
    """Refuse an image that this manager does not have and that its registry does not know.

    A registry that cannot be asked proves nothing: other nodes may have the image.
    Raises: SwarmError.
    """
    try:
        client.get(f"/images/{image}/json")
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            return  # creating the service will say what is wrong with the name
    else:
        return
    try:
        client.get(f"/distribution/{image}/json")
    except ApiError as error:
        if error.status in _NO_SUCH_IMAGE:
            raise SwarmError(
                f"image {image} is neither on this manager nor in its registry ({error.message}): correct "
                f"the name, load it (swarm image load), or give --no-resolve-image if other nodes have it"
            ) from error
        text = f"image {image} is not on this manager, and its registry cannot be asked: {error.message}"
        click.echo(text, err=True)
