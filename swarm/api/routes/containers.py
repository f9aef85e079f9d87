"""`/containers`: the tasks' containers on this node, to look at; one by name also from a manager.

Services make and remove them.
"""

from __future__ import annotations

from datetime import datetime

from aiohttp import web

from swarm.api.backend import Container, ContainerState
from swarm.api.call import Call, Route, answer
from swarm.api.filters import Filters, contains_one_of, has_labels, has_prefix, is_one_of
from swarm.api.logs import read_options, stream_logs
from swarm.api.task_container import container_of, find_task
from swarm.base.clock import SystemClock
from swarm.base.errors import Ambiguous, NotFound
from swarm.model.docker_json import Json, encode, timestamp
from swarm.model.types import PortConfig

CONTAINER_FILTERS = frozenset({"ancestor", "id", "label", "name", "status"})
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - shown to clients, nothing is bound
_clock = SystemClock()


def find_container(containers: tuple[Container, ...], reference: str) -> Container:
    """By id, name, or a unique prefix of the id. Raises NotFound in Docker's words, or Ambiguous."""
    for container in containers:
        if reference.removeprefix("/") in (container.id, container.name):
            return container
    matches = [container for container in containers if reference and container.id.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise Ambiguous("container", reference, len(matches))
    error = NotFound("container", reference)
    error.args = (f"No such container: {reference}",)
    raise error


def find_anywhere(call: Call, reference: str) -> Container:
    """A container of this node or, on a manager, of any node. Raises: NotFound, Ambiguous."""
    try:
        return find_container(tuple(call.backend.engine.containers.list()), reference)
    except NotFound:
        task = find_task(call.backend.control.view, reference) if call.backend.control else None
        if task is None:
            raise
        return container_of(task)


def _select(containers: tuple[Container, ...], filters: Filters, *, with_ended: bool) -> list[Container]:
    return [
        container
        for container in containers
        if (with_ended or "status" in filters or container.state is ContainerState.RUNNING)
        and has_prefix(filters.get("id"), container.id)
        and contains_one_of(filters.get("name"), "/" + container.name)
        and has_labels(filters.get("label"), container.labels)
        and is_one_of(filters.get("status"), container.state)
        and is_one_of(filters.get("ancestor"), container.image)
    ]


def _summary(container: Container, now: datetime) -> Json:
    return {
        "Id": container.id,
        "Names": ["/" + container.name],
        "Image": container.image,
        "ImageID": container.image_id,
        "Command": " ".join(container.command),
        "Created": int(container.created_at.timestamp()),
        "Ports": [_port(port) for port in container.ports],
        "Labels": dict(container.labels),
        "State": container.state.value,
        "Status": _status_words(container, now),
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": _networks(container)},
        "Mounts": _mounts(container),
    }


def _port(port: PortConfig) -> Json:
    return {
        "IP": _EVERY_ADDRESS,
        "PrivatePort": port.target_port,
        "PublicPort": port.published_port,
        "Type": port.protocol.value,
    }


def _networks(container: Container) -> Json:
    found: Json = {}
    for name, cidr in container.networks.items():
        address, _, prefix = cidr.partition("/")
        found[name] = {
            "IPAddress": address,
            "IPPrefixLen": int(prefix or 32),
            "Aliases": None,
            "DNSNames": [],
        }
    return found


def _mounts(container: Container) -> list[Json]:
    return [
        {
            "Type": mount.type,
            "Source": mount.source,
            "Destination": mount.destination,
            "Mode": "",
            "RW": not mount.read_only,
            "Propagation": "",
        }
        for mount in container.mounts
    ]


def _status_words(container: Container, now: datetime) -> str:
    if container.state is ContainerState.RUNNING and container.started_at is not None:
        return f"Up {_span(container.started_at, now)}"
    if container.state is ContainerState.EXITED and container.finished_at is not None:
        return f"Exited ({container.exit_code}) {_span(container.finished_at, now)} ago"
    return container.state.value.capitalize()


_UNITS = (
    (86400 * 14, 86400 * 7, "weeks"),
    (86400 * 2, 86400, "days"),
    (7200, 3600, "hours"),
    (120, 60, "minutes"),
)


def _span(since: datetime, now: datetime) -> str:
    seconds = max(0, int((now - since).total_seconds()))
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if 60 <= seconds < 120:
        return "About a minute"
    if 3600 <= seconds < 7200:
        return "About an hour"
    for at_least, unit, name in _UNITS:
        if seconds >= at_least:
            return f"{seconds // unit} {name}"
    return f"{seconds} seconds"


def _details(container: Container) -> Json:
    is_running = container.state is ContainerState.RUNNING
    command = list(container.command)
    return {
        "Id": container.id,
        "Created": timestamp(container.created_at),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": {
            "Status": container.state.value,
            "Running": is_running,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": False,
            "Dead": container.state is ContainerState.DEAD,
            "Pid": container.pid if is_running else 0,
            "ExitCode": container.exit_code,
            "Error": container.error,
            "StartedAt": timestamp(container.started_at),
            "FinishedAt": timestamp(container.finished_at),
        },
        "Image": container.image_id,
        "Name": "/" + container.name,
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "LogPath": container.log_path,
        "HostConfig": {"NetworkMode": "default", "LogConfig": {"Type": "json-file", "Config": {}}},
        "Mounts": _mounts(container),
        "Config": _config(container),
        "NetworkSettings": {"Networks": _networks(container), "Ports": _port_map(container)},
    }


def _config(container: Container) -> Json:
    return {
        "Hostname": container.hostname,
        "User": container.user,
        "Tty": False,
        "OpenStdin": False,
        "Env": list(container.env),
        "Cmd": list(container.command),
        "Image": container.image,
        "WorkingDir": container.working_dir,
        "Labels": dict(container.labels),
        "StopTimeout": encode(container.stop_grace_period) // 1_000_000_000,
    }


def _port_map(container: Container) -> Json:
    return {
        f"{port.target_port}/{port.protocol}": [
            {"HostIp": _EVERY_ADDRESS, "HostPort": str(port.published_port)}
        ]
        for port in container.ports
    }


async def list_containers(call: Call) -> web.Response:
    filters = call.filters(CONTAINER_FILTERS)
    containers = tuple(call.backend.engine.containers.list())
    now = _clock.now()
    found = _select(containers, filters, with_ended=call.flag("all"))
    limit = call.text("limit")
    if limit.isdigit() and int(limit) > 0:
        found = found[: int(limit)]
    return answer([_summary(container, now) for container in found])


async def inspect(call: Call) -> web.Response:
    return answer(_details(find_anywhere(call, call.params["id"])))


async def logs(call: Call) -> web.StreamResponse:
    engine = call.backend.engine
    container = find_container(tuple(engine.containers.list()), call.params["id"])
    options = read_options(call)
    async with engine.containers.logs(container.id, options) as messages:
        return await stream_logs(call, messages)


ROUTES = (
    Route("GET", "/containers/json", list_containers),
    Route("GET", "/containers/{id}/json", inspect),
    Route("GET", "/containers/{id}/logs", logs),
)
