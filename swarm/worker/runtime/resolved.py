"""What was looked up before a container's configuration is composed, of the host and in the image. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swarm.model.container_rules import CAPABILITIES

ALL_CAPABILITIES = frozenset(f"CAP_{name}" for name in CAPABILITIES)
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the machine has, read once."""

    architecture: str
    swap_limit: bool
    """The kernel accounts swap, so that memory plus swap can be limited."""
    swappiness: bool = True
    """Swappiness can be set for each container: cgroup v1 only."""
    masked_paths: tuple[str, ...] = MASKED_PATHS
    capabilities: frozenset[str] = ALL_CAPABILITIES
    """What swarmd may hand on."""
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    """Ulimits that cannot be raised beyond this here; -1 is no limit. Empty where all can be raised."""
    oom_score_adj: int = -1000
    """What a container's score cannot be lowered below."""
    init: Path | None = None
    """A small static init to put into containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedMount:
    """A mount whose source exists and whose target holds no symbolic link any more."""

    target: str
    type: str = "bind"
    source: str = "tmpfs"
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device of the host, as the container is to see it."""

    path: str
    kind: str
    """`c` or `b`."""
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What the bundle's edge found out in the assembled root file system, and of the host's devices."""

    rootfs: Path
    user: User
    mounts: tuple[ResolvedMount, ...]
    devices: tuple[DeviceNode, ...] = ()
    propagation: str = "private"
    """Of the root file system: what a shared or slave bind needs of it."""
