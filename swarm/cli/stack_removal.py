"""Removing a stack, in an order in which nothing is in use when it goes.

Services first; when their tasks have ended, secrets, configs and networks. Without waiting all go at once, as
Docker's client does it: the manager keeps a network until its last task has left.
Invariant: run again after any interruption, it removes what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from swarm.api.client import ApiError, Client
from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.cli.drain import remaining
from swarm.cli.rows import task_name
from swarm.cli.stack_objects import id_of, name_of, named_stack

Json = Mapping[str, Any]

_LOOK_EVERY_S = 0.2
_NAMED = 5


class Removal:
    def __init__(
        self, client: Client, name: str, timeout_s: float, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._name = name
        self._filters = named_stack(name)
        self._clock = SystemClock()
        self._until = self._clock.monotonic() + timeout_s
        self._pause = pause
        self._services: dict[str, str] = {}
        """Their names, which nobody knows any more when they are removed."""

    def run(self, *, wait: bool) -> None:
        """Raises SwarmError: something could not be removed, or not in time."""
        found = {kind: self._list(kind) for kind in ("services", "secrets", "configs", "networks")}
        if not any(found.values()) and not (wait and self._list("tasks")):
            click.echo(f"Nothing found in stack: {self._name}", err=True)
            return
        self._services |= {id_of(item): name_of(item) for item in found["services"]}
        self._remove("service", found["services"])
        if wait:
            self._wait_for_tasks()
        for kind in ("secret", "config", "network"):
            self._remove(kind, found[f"{kind}s"])

    def _list(self, kind: str) -> list[Json]:
        found: list[Json] = self._client.get(f"/{kind}", filters=self._filters)
        return found

    def _remove(self, kind: str, items: list[Json]) -> None:
        failures = []
        for item in sorted(items, key=name_of):
            click.echo(f"Removing {kind} {name_of(item)}")
            try:
                self._client.delete(f"/{kind}s/{id_of(item)}")
            except ApiError as error:
                if error.status != 404:  # somebody else has removed it
                    failures.append(f"{kind} {name_of(item)}: {error.message}")
        if failures:
            raise SwarmError(f"stack {self._name} is removed in part only: {'; '.join(failures)}")

    def _wait_for_tasks(self) -> None:
        """Until no task is left, but for those on nodes that are down: nobody knows of them."""
        said = ""
        while tasks := remaining(self._list("tasks")):
            down = {n["ID"]: n for n in self._client.get("/nodes") if n["Status"]["State"] == "down"}
            waited = [task for task in tasks if task.get("NodeID") not in down]
            if not waited:
                click.echo(f"Not waited for, on nodes that are down: {self._told(tasks)}", err=True)
                return
            line = f"Waiting for tasks to end: {self._told(waited)}"
            if self._clock.monotonic() >= self._until:
                why = f"{line[0].lower()}{line[1:]}"
                raise SwarmError(f"gave up removing stack {self._name}: {why}; run the command again")
            if line != said:
                click.echo(line, err=True)
                said = line
            self._pause(_LOOK_EVERY_S)

    def _told(self, tasks: Sequence[Json]) -> str:
        services = [str(task["ServiceID"]) for task in tasks]
        pairs = zip(tasks, services, strict=True)
        names = sorted(task_name(task, self._services.get(id, id)) for task, id in pairs)
        others = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + others
