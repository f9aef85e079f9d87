"""service logs: the merged stream of a service's tasks, each line with the task it comes from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

import click

from swarm.api.client import Client, JsonValue, read_frames
from swarm.base.clock import SystemClock
from swarm.base.errors import InvalidArgument, SwarmError
from swarm.cli.options import connect
from swarm.cli.resolve import find, node_name, slot_of
from swarm.cli.rows import SHORT_ID
from swarm.cli.values import parse_unsigned, unix_time

_LABEL = "com.docker.swarm."
_CONTEXT = ("node.id", "service.id", "task.id")
"""The details by which a line's task is found."""


@click.command(epilog="Example: swarm service logs -f --tail 20 web")
@click.argument("name", metavar="SERVICE|TASK")
@click.option("-f", "--follow", is_flag=True, help="Follow log output")
@click.option("-n", "--tail", default="all", metavar="N|all", help="Lines from the end of the logs")
@click.option("--since", default="", metavar="TIME", help="2026-01-02T13:23:37Z, or an age such as 42m")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps")
@click.option("--details", is_flag=True, help="Show what the log driver adds to each line")
@click.option("--raw", is_flag=True, help="Print the lines alone")
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to names")
@click.option("--no-task-ids", is_flag=True, help="Leave the task's ID out")
@click.option("--no-trunc", is_flag=True, help="Do not truncate the task's ID")
@click.pass_context
def logs(ctx: click.Context, /, name: str, tail: str, since: str, **flags: bool) -> None:
    """Fetch the logs of a service or task."""
    query: dict[str, JsonValue] = {
        "details": None if flags["raw"] else True,
        "stdout": True,
        "stderr": True,
        "follow": flags["follow"] or None,
        "timestamps": flags["timestamps"] or None,
        "tail": _checked_tail(tail),
        "since": _checked_since(since),
    }
    with connect(ctx) as client:
        path, replicas, is_tty = _target(client, name)
        if is_tty and not flags["raw"]:
            raise SwarmError("tty service logs only supported with --raw")
        names = _Prefixes(client, replicas, flags)
        with client.stream("GET", f"{path}/logs", **query) as answer:
            if is_tty:
                while piece := answer.read1(1 << 16):
                    _write(1, piece)
                return
            for stream, payload in read_frames(answer):
                _write(stream, payload if flags["raw"] else _format(payload, names.of, flags))


def _checked_tail(tail: str) -> str:
    if tail != "all":
        try:
            parse_unsigned(tail)
        except ValueError:
            text = f'invalid argument "{tail}" for "-n, --tail" flag: it is a number of lines or all'
            raise InvalidArgument(text) from None
    return tail


def _checked_since(since: str) -> str | None:
    try:
        return unix_time(since, SystemClock().now()) if since else None
    except ValueError as error:
        raise InvalidArgument(f'invalid argument "{since}" for "--since" flag: {error}') from None


def _target(client: Client, name: str) -> tuple[str, int, bool]:
    """The API path of the service or task, the highest slot to align to, whether it has a TTY."""
    service = find(client, f"/services/{name}")
    if service is not None:
        replicated = service["Spec"]["Mode"].get("Replicated") or {}
        is_tty = bool(service["Spec"]["TaskTemplate"]["ContainerSpec"].get("TTY"))
        return f"/services/{service['ID']}", int(replicated.get("Replicas", 1)), is_tty
    task = find(client, f"/tasks/{name}")
    if task is None:
        raise SwarmError(f"no such task or service: {name}")
    is_tty = bool(task["Spec"].get("ContainerSpec", {}).get("TTY"))
    return f"/tasks/{task['ID']}", slot_of(task) or 1, is_tty


class _Prefixes:
    """`web.1.x2wz@h3    |`: looked up once for each task, while the log stream is open."""

    def __init__(self, client: Client, replicas: int, flags: dict[str, bool]) -> None:
        self._client = client
        self._width = len(str(replicas))
        self._flags = flags
        self._known: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def of(self, details: dict[str, str]) -> str:
        task_id = details.get(f"{_LABEL}task.id", "")
        if task_id not in self._known:
            self._known[task_id] = self._make(details, task_id)
        return self._known[task_id]

    def _make(self, details: dict[str, str], task_id: str) -> str:
        node_id, service_id = details[f"{_LABEL}node.id"], details[f"{_LABEL}service.id"]
        service = self._name(service_id, f"/services/{service_id}", lambda found: found["Spec"]["Name"])
        node = self._name(node_id, f"/nodes/{node_id}", node_name)
        task = find(self._client, f"/tasks/{task_id}") or {}
        slot = str(slot_of(task))
        text = f"{service}.{slot}" if slot != "0" else f"{service}.{node_id}"
        if not self._flags["no_task_ids"]:
            text += f".{task_id if self._flags['no_trunc'] else task_id[:SHORT_ID]}"
        return f"{text}@{node}" + " " * (self._width - len(slot))

    def _name(self, id: str, path: str, read: Callable[[Any], str]) -> str:
        if self._flags["no_resolve"]:
            return id
        if id not in self._names:
            found = find(self._client, path)
            self._names[id] = id if found is None else str(read(found))
        return self._names[id]


def _format(payload: bytes, prefix: Callable[[dict[str, str]], str], flags: dict[str, bool]) -> bytes:
    """`[time ]prefix    | [details ]message` of a record `[time ]details message`."""
    stamp = b""
    if flags["timestamps"]:
        stamp, _, payload = payload.partition(b" ")
        stamp += b" "
    packed, _, message = payload.partition(b" ")
    details = dict(_detail(pair) for pair in packed.decode(errors="replace").split(",") if pair)
    missing = [k for k in _CONTEXT if f"{_LABEL}{k}" not in details]
    if missing:
        raise SwarmError(f"missing {missing[0].replace('.', ' ')} in details")
    start = stamp + prefix(details).encode() + b"    | "
    if not flags["details"]:
        return start + message
    added = (f"{k}={v}" for k, v in sorted(details.items()) if k.removeprefix(_LABEL) not in _CONTEXT)
    return start + ",".join(added).encode() + b" " + message


def _detail(pair: str) -> tuple[str, str]:
    key, _, value = pair.partition("=")
    return unquote_plus(key), unquote_plus(value)


def _write(stream: int, text: bytes) -> None:
    out = sys.stderr.buffer if stream == 2 else sys.stdout.buffer
    out.write(text)
    out.flush()
