"""The cgroups of a lab's hosts: made, entered, emptied and removed.

In: a lab's and a host's name. Out: one group per host in every cgroup v1 hierarchy, or in the one of
cgroup v2. Invariant: every process of a host is in that host's groups or below from before it has a
namespace of its own, so whatever happens to the record, the groups tell which processes are to be killed.

A v2 next to v1 ("hybrid") is left alone: its processes stay in the machine's root group there, and the
host does not see it, since crun 1.8.1 refuses a host that has both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.lab.names import CGROUP_PARENT, cgroup_path

ROOT = Path("/sys/fs/cgroup")
# cgroup v2 allows no processes beside child groups with controllers: all but containers live in a leaf.
V2_LEAF = "init"
_POLL_S = 0.005
_DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """A cgroup mount of the machine. `options` are the controllers that v1 mounts it with; empty means v2."""

    mount: Path
    options: str

    @property
    def is_v2(self) -> bool:
        return not self.options

    def group(self, lab: str, host: str | None = None) -> Path:
        return self.mount / cgroup_path(lab, host)


def parse_hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The hierarchies to use: v2 where it is mounted at the root, otherwise every v1 mount below the root."""
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount = Path(left.split()[4])
        kind, _, options = right.split(maxsplit=2)
        if kind == "cgroup2" and mount == ROOT:
            return (Hierarchy(mount=mount, options=""),)
        if kind == "cgroup" and mount.parent == ROOT:
            found[mount] = Hierarchy(mount=mount, options=_controllers(options))
    return tuple(found.values())


def _controllers(super_options: str) -> str:
    """The mount options that say which hierarchy it is, without those that only say how it is mounted."""
    how = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"}
    kept = [o for o in super_options.split(",") if o not in how and not o.startswith("release_agent=")]
    return ",".join(kept)


def hierarchies() -> tuple[Hierarchy, ...]:
    found = parse_hierarchies(Path("/proc/self/mountinfo").read_text())
    if not found:
        raise SwarmError(f"no cgroups are mounted below {ROOT}: mount them, then try again")
    return found


def make(lab: str, host: str) -> None:
    """Make the host's group in every hierarchy, ready to take processes."""
    for hierarchy in hierarchies():
        parent = hierarchy.mount
        for part in cgroup_path(lab, host).split("/"):
            if hierarchy.is_v2:
                _delegate(parent)
            group = parent / part
            group.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.options.split(","):
                _inherit_cpuset(group)
            parent = group
        if hierarchy.is_v2:
            (parent / V2_LEAF).mkdir(exist_ok=True)


def _delegate(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        # A controller may be in use elsewhere in a way that forbids it here; the others still serve.
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(group: Path) -> None:
    """A new v1 cpuset allows no cpu and no memory node, and takes no process until it does."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (group / name).read_text().strip():
            (group / name).write_text((group.parent / name).read_text())


def processes(lab: str, host: str) -> tuple[int, ...]:
    """The pids, as this machine counts them, of every process of a host."""
    return tuple(sorted({pid for h in hierarchies() for pid in _processes(h.group(lab, host))}))


def entry_groups(lab: str, host: str) -> list[str]:
    """The groups that a process joins to be one of the running host's."""
    return [str(h.group(lab, host) / V2_LEAF if h.is_v2 else h.group(lab, host)) for h in hierarchies()]


def clear(lab: str, hosts: Sequence[str] | None = None) -> None:
    """Kill every process of `hosts` (of the whole lab if None) and remove the groups. Fine if there are none.

    Raises:
        SwarmError: the kernel did not let go of them in time.
    """
    tops = [h.group(lab, host) for h in hierarchies() for host in (hosts or (None,))]
    clock = SystemClock()
    deadline = clock.monotonic() + _DEADLINE_S
    while tops := [top for top in tops if not _remove_tree(top)]:
        if clock.monotonic() > deadline:
            left = sorted({pid for top in tops for pid in _processes(top)})
            raise SwarmError(f"cgroups of lab {lab} stay busy (processes {left}): run `swarm lab down` again")
        time.sleep(_POLL_S)
    if hosts is None:
        for hierarchy in hierarchies():
            with contextlib.suppress(OSError):  # another lab is below it, or it was never made
                (hierarchy.mount / CGROUP_PARENT).rmdir()


def _remove_tree(top: Path) -> bool:
    """One try: thaw and kill what is in it, then remove it bottom-up. True when it is gone."""
    for group in _groups(top):
        state = group / "freezer.state"  # a frozen process of v1 does not even die
        with contextlib.suppress(OSError):
            if state.exists() and state.read_text().strip() != "THAWED":
                state.write_text("THAWED")
    for pid in _processes(top):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for group in _groups(top):
        with contextlib.suppress(OSError):  # still busy: the caller comes back
            group.rmdir()
    return not top.exists()


def _groups(top: Path) -> Iterator[Path]:
    """`top` and all below it, deepest first."""
    for path, _, _ in os.walk(top, topdown=False):
        yield Path(path)


def _processes(top: Path) -> Iterator[int]:
    for group in _groups(top):
        with contextlib.suppress(OSError):  # removed meanwhile
            yield from (int(pid) for pid in (group / "cgroup.procs").read_text().split())
