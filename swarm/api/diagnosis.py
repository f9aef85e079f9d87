"""What `swarm system info` shows: how this node's store, runtime, kernel and certificate are.

Declared here because the API is who needs it; `swarm.node` gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from swarm.model.objects import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMember:
    """One member of the managers' store; zeros and empty texts where nobody answers for it."""

    node_id: str
    hostname: str
    address: str
    role: str
    """`leader`, `voter` or `learner`: raft's roles, not the swarm's."""
    is_reachable: bool
    state: str
    message: str
    version: str
    size_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    state: str
    """OK, STARTING, SLOW, NO_QUORUM, ALARM, DISK_FULL, CORRUPT, REMOVED, PORT_IN_USE or FAILED."""
    message: str
    is_external: bool
    version: str
    """Of the etcd on this host, or of the external ones."""
    support: str
    quota_bytes: int
    members: tuple[StoreMember, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeReport:
    name: str
    path: str
    reason: str
    cgroup_mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    name: str
    is_present: bool
    note: str
    """What it is for, or what stands in for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemReport:
    store: StoreReport | None
    """None on a node that is no manager."""
    runtime: RuntimeReport
    capabilities: tuple[Capability, ...]
    certificate_until: datetime | None
    """None outside of a swarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """How far the swarm is on its way to another data key."""

    state: str
    """`none`, `distributing` (every manager gets the new key) or `resealing`."""
    key: str
    """The name of the key that seals now: a digest that tells nothing of it."""
    waits_for: tuple[Node, ...]
    """Managers that have not got the new key yet."""
    left: int
    """Objects that are sealed with the former key."""
    total: int


class System(Protocol):
    async def report(self) -> SystemReport: ...

    def warnings(self) -> tuple[str, ...]:
        """What `docker info` warns of; cheap."""
        ...

    async def repair(self, tell: Callable[[str], None]) -> None:
        """Have this manager's damaged member of the store replaced from the others; `tell` hears each step.

        Raises: NotManager; FailedPrecondition when nothing is wrong; Unavailable when nobody can help.
        """
        ...

    async def rotate_data_key(self) -> None:
        """Set out for another data key; one that is under way goes on. Raises: NotManager, Unavailable."""
        ...

    def key_rotation(self) -> KeyRotation:
        """Raises: NotManager."""
        ...
