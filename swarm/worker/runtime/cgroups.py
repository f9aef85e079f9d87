"""Reads a container's cgroup files: what it uses, and what to tidy. v1 and v2.

Invariant: nothing outside `/swarm/<id>` is read or removed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swarm.worker.runtime.host import CGROUP_ROOT

PARENT = "swarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """0 where the kernel does not say."""

    cpu_usage_ns: int = 0
    memory_usage_bytes: int = 0
    """Without page cache that can be dropped at once, as `docker stats` counts."""
    memory_limit_bytes: int = 0
    pids: int = 0
    pids_limit: int = 0
    oom_kills: int = 0


def read_stats(container_id: str, root: Path = CGROUP_ROOT) -> Stats:
    """The container's use of the machine now."""
    if (root / "cgroup.controllers").exists():
        return _read_v2(root / PARENT / container_id)
    memory = root / "memory" / PARENT / container_id
    pids = root / "pids" / PARENT / container_id
    inactive = _keyed(memory / "memory.stat").get("total_inactive_file", 0)
    return Stats(
        cpu_usage_ns=_number(root / "cpuacct" / PARENT / container_id / "cpuacct.usage"),
        memory_usage_bytes=max(0, _number(memory / "memory.usage_in_bytes") - inactive),
        memory_limit_bytes=_number(memory / "memory.limit_in_bytes"),
        pids=_number(pids / "pids.current"),
        pids_limit=_number(pids / "pids.max"),
        oom_kills=_keyed(memory / "memory.oom_control").get("oom_kill", 0),
    )


def _read_v2(directory: Path) -> Stats:
    inactive = _keyed(directory / "memory.stat").get("inactive_file", 0)
    return Stats(
        cpu_usage_ns=_keyed(directory / "cpu.stat").get("usage_usec", 0) * 1000,
        memory_usage_bytes=max(0, _number(directory / "memory.current") - inactive),
        memory_limit_bytes=_number(directory / "memory.max"),
        pids=_number(directory / "pids.current"),
        pids_limit=_number(directory / "pids.max"),
        oom_kills=_keyed(directory / "memory.events").get("oom_kill", 0),
    )


def remove_cgroups(container_id: str, root: Path = CGROUP_ROOT) -> None:
    """Remove the cgroups that a killed runtime leaves behind. In use or missing is fine."""
    for directory in (root / PARENT / container_id, *root.glob(f"*/{PARENT}/{container_id}")):
        with suppress(OSError):
            directory.rmdir()


def remove_parent(root: Path = CGROUP_ROOT) -> None:
    """Remove the empty parents of all containers' cgroups, for when the last swarmd of a machine has gone."""
    for directory in (root / PARENT, *root.glob(f"*/{PARENT}")):
        with suppress(OSError):
            directory.rmdir()


def in_container(cgroup_file: str, container_id: str) -> bool:
    """Whether /proc/<pid>/cgroup (`cgroup_file`) is that of a process in the container."""
    return any(f"/{PARENT}/{container_id}/" in f"{line}/" for line in cgroup_file.splitlines())


def processes(container_id: str, root: Path = CGROUP_ROOT) -> set[int]:
    """The pids in the container's cgroups, whichever controller knows them."""
    found: set[int] = set()
    for directory in (root / PARENT / container_id, *root.glob(f"*/{PARENT}/{container_id}")):
        with suppress(OSError):
            found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
    return found - {0}


def _number(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def _keyed(path: Path) -> dict[str, int]:
    with suppress(OSError, ValueError):
        pairs = (line.split() for line in path.read_text().splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    return {}
