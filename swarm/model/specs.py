"""What users ask for. A spec is the user's: the system stores it, echoes it and never edits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from swarm.model.types import (
    Availability,
    EndpointSpec,
    Mount,
    NodeRole,
    Placement,
    ResourceRequirements,
    RestartPolicy,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    """Replaces the image's entrypoint when not empty."""
    args: tuple[str, ...] = ()
    hostname: str = ""
    env: tuple[str, ...] = ()
    """`KEY=value`; a bare `KEY` removes the image's variable."""
    dir: str = ""
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    stop_signal: str = ""
    stop_grace_period: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    container_spec: ContainerSpec = field(default_factory=ContainerSpec)
    resources: ResourceRequirements | None = None
    restart_policy: RestartPolicy | None = None
    placement: Placement | None = None
    force_update: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedMode:
    replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalMode:
    """One task on every eligible node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMode:
    """Exactly one field is set."""

    replicated: ReplicatedMode | None = None
    global_: GlobalMode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    task_template: TaskSpec = field(default_factory=TaskSpec)
    mode: ServiceMode = field(default_factory=lambda: ServiceMode(replicated=ReplicatedMode()))
    endpoint_spec: EndpointSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    role: NodeRole = NodeRole.WORKER
    availability: Availability = Availability.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = "overlay"
    ingress: bool = False
    subnet: str = ""
    """CIDR; empty asks for one from the cluster's pools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    name: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    task_history_retention_limit: int = 5
    """Dead tasks kept per slot; negative keeps all. SwarmKit keeps 5."""
    heartbeat_period: timedelta = timedelta(seconds=1)
    """How often an agent reports; a node silent for four periods is down. SwarmKit: 5 s and three."""
    node_cert_expiry: timedelta = timedelta(days=90)
    auto_lock_managers: bool = False
    """A manager that restarts needs the unlock key before it can read its keys and state."""
    force_rotate: int = 0
    """Raised by whoever wants the certificate authority replaced by a new one."""
