"""What every node has left: stored objects in, one `NodeInfo` per node out.

`Accounting` is built once from a view and then kept by `apply(old, new)` for each change.
Invariant: after any sequence of changes it equals one built anew from the objects that remain. Each task adds
and takes away only what can be read in the task itself, so no order of events can make it drift.

Failures are read in stored tasks too and not remembered, so a new leader avoids the same nodes.
Source: SwarmKit manager/scheduler/nodeinfo.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from swarm.base.ids import NodeID, ServiceID, TaskID
from swarm.model.generic_resources import Claims, claims_of
from swarm.model.objects import Node, StoredObject, Task
from swarm.model.task_state import TaskState
from swarm.model.types import Protocol, PublishMode, Resources
from swarm.model.view import ClusterView

FAILURES_TO_AVOID = 5
"""A node on which this many tasks of one release failed lately is taken last (SwarmKit maxFailures)."""

FAILURE_MEMORY = timedelta(minutes=5)
"""SwarmKit monitorFailures."""

NO_RESERVATION = Resources()

HostPort = tuple[Protocol, int]
Release = tuple[ServiceID, int]
"""A service and the version of its task template."""


def release_of(task: Task) -> Release:
    return task.service_id, task.spec_version.index


def reservations_of(task: Task) -> Resources:
    return task.spec.resources.reservations if task.spec.resources else NO_RESERVATION


def host_ports_of(task: Task) -> frozenset[HostPort]:
    """The ports that the task takes from its node: those it asks for and those the node picked for it."""
    return frozenset(
        (port.protocol, port.published_port)
        for port in (*task.endpoint.ports, *task.status.ports)
        if port.publish_mode is PublishMode.HOST and port.published_port
    )


@dataclass(slots=True)
class NodeInfo:
    """One node and what its tasks take of it. Mutable: only `Accounting` writes it."""

    node: Node | None = None
    """None while tasks name a node that the view does not hold."""
    reserved_nano_cpus: int = 0
    reserved_memory_bytes: int = 0
    claimed: Claims = field(default_factory=Counter)
    """Generic resources."""
    host_ports: Counter[HostPort] = field(default_factory=Counter)
    active_by_service: Counter[ServiceID] = field(default_factory=Counter)
    """Tasks meant to go on running; those being stopped still hold resources but do not count here."""
    active: int = 0
    failures: dict[Release, dict[TaskID, datetime]] = field(default_factory=dict)

    def recent_failures(self, release: Release, now: datetime) -> int:
        return sum(1 for at in self.failures.get(release, {}).values() if now - at < FAILURE_MEMORY)

    def count(self, task: Task, sign: int) -> None:
        """Add (`sign` 1) or take away (-1) what `task` takes."""
        state = task.status.state
        if TaskState.ASSIGNED <= state <= TaskState.RUNNING:
            reserved = reservations_of(task)
            self.reserved_nano_cpus += sign * reserved.nano_cpus
            self.reserved_memory_bytes += sign * reserved.memory_bytes
            for port in host_ports_of(task):
                _add(self.host_ports, port, sign)
            for resource, number in claims_of(task.assigned_generic_resources).items():
                _add(self.claimed, resource, sign * number)
            if task.desired_state <= TaskState.COMPLETE:
                self.active += sign
                _add(self.active_by_service, task.service_id, sign)
        elif state in (TaskState.FAILED, TaskState.REJECTED) and task.status.timestamp:
            self._count_failure(task, task.status.timestamp, sign)

    def _count_failure(self, task: Task, at: datetime, sign: int) -> None:
        release = release_of(task)
        failures = self.failures.setdefault(release, {})
        if sign > 0:
            failures[task.id] = at
        else:
            failures.pop(task.id, None)
        if not failures:
            del self.failures[release]


class Accounting:
    """`NodeInfo` of every node, kept up to date change by change."""

    def __init__(self, items: Iterable[StoredObject] = ()) -> None:
        self._nodes: dict[NodeID, NodeInfo] = {}
        for item in items:
            self.apply(None, item)

    @classmethod
    def of(cls, view: ClusterView) -> Accounting:
        return cls((*view.list(Node), *view.list(Task)))

    def apply(self, old: StoredObject | None, new: StoredObject | None) -> None:
        """Take one change of the store into account: `old` None is a creation, `new` None a deletion."""
        for item, sign in ((old, -1), (new, 1)):
            match item:
                case Task() if item.node_id:
                    self._nodes.setdefault(item.node_id, NodeInfo()).count(item, sign)
                    self._forget_if_empty(item.node_id)
                case Node():
                    self._nodes.setdefault(item.id, NodeInfo()).node = item if sign > 0 else None
                    self._forget_if_empty(item.id)

    def get(self, node_id: NodeID) -> NodeInfo | None:
        return self._nodes.get(node_id)

    def list(self) -> list[NodeInfo]:
        """Every node that exists."""
        return [found for found in self._nodes.values() if found.node is not None]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accounting) and self._nodes == other._nodes

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _forget_if_empty(self, node_id: NodeID) -> None:
        if self._nodes[node_id] == NodeInfo():
            del self._nodes[node_id]


K = TypeVar("K")


def _add(counter: Counter[K], key: K, number: int) -> None:
    counter[key] += number
    if not counter[key]:
        del counter[key]
