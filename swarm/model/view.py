"""The cluster's objects in memory, indexed for the questions that planners and the API ask.

`ClusterView` is what readers see; `Objects` is the one that whoever mirrors the store also writes to.
Reads are synchronous and consistent between two awaits: nothing changes under a planner.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from swarm.base.errors import Ambiguous, NotFound
from swarm.base.ids import NodeID, ServiceID
from swarm.model.objects import (
    Cluster,
    Config,
    Network,
    Node,
    Payload,
    Secret,
    Service,
    StoredObject,
    Task,
)

T = TypeVar("T", Service, Task, Node, Network, Cluster, Secret, Config, Payload)

KIND_NAMES: dict[type[StoredObject], str] = {
    Service: "service",
    Task: "task",
    Node: "node",
    Network: "network",
    Cluster: "swarm",
    Secret: "secret",
    Config: "config",
    Payload: "payload",
}
"""How messages call each kind."""


class ClusterView(Protocol):
    def get(self, kind: type[T], object_id: str) -> T | None: ...

    def list(self, kind: type[T]) -> tuple[T, ...]:
        """All objects of a kind, oldest first."""
        ...

    def named(self, kind: type[T], name: str) -> tuple[T, ...]:
        """Objects of that exact name (nodes may share a hostname)."""
        ...

    def tasks_of_service(self, service_id: ServiceID) -> tuple[Task, ...]: ...

    def tasks_on_node(self, node_id: NodeID) -> tuple[Task, ...]: ...


def name_of(item: StoredObject) -> str:
    """The name users know an object by; empty where there is none."""
    match item:
        case Network():
            return "" if item.is_removed else item.spec.name
        case Service() | Cluster() | Secret() | Config():
            return item.spec.name
        case Node():
            return item.description.hostname
        case Task():
            return item.name
        case Payload():
            return ""


def find(view: ClusterView, kind: type[T], reference: str) -> T:
    """The object that a user means: by full id, else by exact name, else by a unique prefix of the id.

    Raises:
        NotFound: nothing fits.
        Ambiguous: more than one does.
    """
    exact = view.get(kind, reference)
    if exact is not None:
        return exact
    matches = view.named(kind, reference)
    if not matches and reference:
        matches = tuple(item for item in view.list(kind) if item.id.startswith(reference))
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise Ambiguous(KIND_NAMES[kind], reference, len(matches))
    raise NotFound(KIND_NAMES[kind], reference)


class Objects:
    """A mutable `ClusterView`: only the store's mirror or a test's pure cluster calls `put` and `remove`."""

    def __init__(self, items: Iterable[StoredObject] = ()) -> None:
        self._by_kind: dict[type, dict[str, StoredObject]] = {kind: {} for kind in KIND_NAMES}
        self._by_name: dict[tuple[type, str], dict[str, StoredObject]] = {}
        self._tasks_by_service: dict[str, dict[str, Task]] = {}
        self._tasks_by_node: dict[str, dict[str, Task]] = {}
        for item in items:
            self.put(item)

    def get(self, kind: type[T], object_id: str) -> T | None:
        return self._by_kind[kind].get(object_id)  # type: ignore[return-value]  # keyed by kind

    def stored(self, kind: type[StoredObject], object_id: str) -> StoredObject | None:
        """`get` for a kind that is only known at run time."""
        return self._by_kind[kind].get(object_id)

    def list(self, kind: type[T]) -> tuple[T, ...]:
        return tuple(self._by_kind[kind].values())  # type: ignore[arg-type]  # keyed by kind

    def named(self, kind: type[T], name: str) -> tuple[T, ...]:
        return tuple(self._by_name.get((kind, name), {}).values())  # type: ignore[arg-type]  # keyed by kind

    def tasks_of_service(self, service_id: ServiceID) -> tuple[Task, ...]:
        return tuple(self._tasks_by_service.get(service_id, {}).values())

    def tasks_on_node(self, node_id: NodeID) -> tuple[Task, ...]:
        return tuple(self._tasks_by_node.get(node_id, {}).values())

    def put(self, item: StoredObject) -> StoredObject | None:
        """Add or replace; returns what stood there."""
        kind = type(item)
        old = self._by_kind[kind].get(item.id)
        if old is not None:
            self._unindex(old)
        self._by_kind[kind][item.id] = item
        if not isinstance(item, Task):
            self._by_name.setdefault((kind, name_of(item)), {})[item.id] = item
            return old
        self._tasks_by_service.setdefault(item.service_id, {})[item.id] = item
        if item.node_id:
            self._tasks_by_node.setdefault(item.node_id, {})[item.id] = item
        return old

    def remove(self, kind: type[StoredObject], object_id: str) -> StoredObject | None:
        """Take an object out; returns it, or None if it was not there."""
        old = self._by_kind[kind].pop(object_id, None)
        if old is not None:
            self._unindex(old)
        return old

    def _unindex(self, old: StoredObject) -> None:
        if isinstance(old, Task):
            _discard(self._tasks_by_service, old.service_id, old.id)
            _discard(self._tasks_by_node, old.node_id, old.id)
        else:
            _discard(self._by_name, (type(old), name_of(old)), old.id)


K = TypeVar("K")
V = TypeVar("V")


def _discard(index: dict[K, dict[str, V]], key: K, object_id: str) -> None:
    entries = index.get(key)
    if entries is None:
        return
    entries.pop(object_id, None)
    if not entries:
        del index[key]
