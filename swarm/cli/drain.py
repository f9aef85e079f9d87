"""Waiting until a drained node runs nothing any more; what remains is told whenever it changes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from swarm.api.client import Client
from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.cli.resolve import names_of_tasks, slot_of

Json = Mapping[str, Any]

_LOOK_EVERY_S = 0.3
_NAMED = 5
_LIVE = frozenset({"assigned", "accepted", "preparing", "ready", "starting", "running"})


def remaining(tasks: Sequence[Json]) -> list[Json]:
    """Those that the node has not ended yet."""
    return [task for task in tasks if task["Status"]["State"] in _LIVE]


def told(tasks: Sequence[Json], services: Mapping[str, str], node: str) -> str:
    """`2 tasks are left on h3: web.1, db.1`."""
    names = sorted(f"{_service(task, services)}.{slot_of(task) or node}" for task in tasks)
    others = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    number = "1 task is" if len(names) == 1 else f"{len(names)} tasks are"
    return f"{number} left on {node}: {', '.join(names[:_NAMED])}{others}"


def advice(tasks: Sequence[Json], services: Mapping[str, str]) -> str:
    """What shows why these tasks stay."""
    found = sorted({_service(task, services) for task in tasks})
    return ", ".join(f"swarm service explain {name}" for name in found[:_NAMED])


def _service(task: Json, services: Mapping[str, str]) -> str:
    return services.get(task["ServiceID"]) or str(task["ServiceID"])


def wait_until_empty(client: Client, node_id: str, node: str, timeout_s: float | None) -> None:
    """Return when no task is left on the node.

    Raises:
        SwarmError: the time is over, or the node is down, so that nobody knows.
    """
    clock, said = SystemClock(), ""
    until = None if timeout_s is None else clock.monotonic() + timeout_s
    while left := remaining(client.get("/tasks", filters={"node": [node_id]})):
        services = names_of_tasks(client, left)
        line = told(left, services, node)
        if client.get(f"/nodes/{node_id}")["Status"]["State"] == "down":
            raise SwarmError(f"{node} is down, nobody knows whether its tasks have ended: {line}")
        if until is not None and clock.monotonic() >= until:
            raise SwarmError(f"gave up after {timeout_s:g} s: {line}; see {advice(left, services)}")
        if line != said:
            click.echo(line, err=True)
            said = line
        time.sleep(_LOOK_EVERY_S)
