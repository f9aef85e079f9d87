"""What `swarm system info` shows: how this node's store, runtime, kernel and certificate are.

Declared here because the API is who needs it; `swarm.node` gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


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


class System(Protocol):
    async def report(self) -> SystemReport: ...

    def warnings(self) -> tuple[str, ...]:
        """What `docker info` warns of; cheap."""
        ...

    async def repair(self) -> None:
        """Have this manager's damaged member of the store replaced from the others.

        Raises: NotManager; FailedPrecondition when nothing is wrong; Unavailable when nobody can help.
        """
        ...
