"""What there is of a lab on this machine, counted without believing the lab's own record.

In: a lab's name. Out: how many processes, namespaces, mounts, cgroups, nftables tables, links and folders are
the lab's. Invariant: counts what the kernel shows, so that a `down` that forgot something is found out.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swarm.lab import cgroups, names, programs, record

_PROC = Path("/proc")
_NSFS = re.compile(r"\b\w+:\[\d+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    processes: int
    namespaces: frozenset[str]
    """As the kernel writes them: `net:[4026532008]`."""
    mounts: int
    cgroups: int
    nft_tables: int
    links: int
    folders: int

    def __str__(self) -> str:
        return (
            f"{self.processes} processes, {len(self.namespaces)} namespaces, {self.mounts} mounts, "
            f"{self.cgroups} cgroups, {self.nft_tables} nft tables, {self.links} links,"
            f" {self.folders} folders"
        )

    def __bool__(self) -> bool:
        return bool(
            self.processes
            or self.namespaces
            or self.mounts
            or self.cgroups
            or self.nft_tables
            or self.links
            or self.folders
        )


def find_traces(lab: str, known: frozenset[str] = frozenset()) -> Traces:
    """What there is of `lab` now; `known` are namespaces that it had before."""
    mine = [pid for pid in _pids() if _is_of(pid, lab)]
    ours = _namespaces(os.getpid())
    held = frozenset().union(*(_namespaces(pid) for pid in mine)) - ours
    return Traces(
        processes=len(mine),
        namespaces=held | (known & _all_namespaces()),
        mounts=_mounts(lab, mine),
        cgroups=sum(_folders_below(h.group(lab)) for h in cgroups.hierarchies()),
        nft_tables=_nft_tables(lab, mine),
        links=int(Path("/sys/class/net", names.uplink_name(lab)).exists()),
        folders=sum(path.exists() for path in (record.run_dir(lab), record.disk_dir(lab))),
    )


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]


def _is_of(pid: int, lab: str) -> bool:
    with suppress(OSError):  # it has ended
        lines = (_PROC / str(pid) / "cgroup").read_text().splitlines()
        own = f"/{names.cgroup_path(lab)}"
        return any(f"{line.split(':', 2)[2]}/".startswith(f"{own}/") for line in lines)
    return False


def _namespaces(pid: int) -> frozenset[str]:
    with suppress(OSError):
        folder = _PROC / str(pid) / "ns"
        return frozenset(os.readlink(entry) for entry in folder.iterdir())
    return frozenset()


def _all_namespaces() -> frozenset[str]:
    """Every namespace that a process is in or a mount keeps."""
    kept = _NSFS.findall((_PROC / "self/mountinfo").read_text())
    return frozenset(kept).union(*(_namespaces(pid) for pid in _pids()))


def _mounts(lab: str, pids: list[int]) -> int:
    """The machine's mounts that name the lab, and those in the mount namespaces of its hosts."""
    own = f"/swarm-lab/{lab}"
    ours = sum(own in line for line in (_PROC / "self/mountinfo").read_text().splitlines())
    theirs = {}
    for pid in pids:
        with suppress(OSError):
            folder = _PROC / str(pid)
            theirs[os.readlink(folder / "ns/mnt")] = len((folder / "mountinfo").read_text().splitlines())
    theirs.pop(os.readlink("/proc/self/ns/mnt"), None)
    return ours + sum(theirs.values())


def _folders_below(top: Path) -> int:
    return sum(1 for _ in os.walk(top))


def _nft_tables(lab: str, pids: list[int]) -> int:
    """The machine's table of the lab, and all tables in the network namespaces of its hosts."""
    count = programs.run(["nft", "list", "tables"]).split().count(names.nat_table(lab))
    ours = os.readlink("/proc/self/ns/net")
    places: dict[str, int] = {}
    for pid in pids:
        with suppress(OSError):
            places[os.readlink(f"/proc/{pid}/ns/net")] = pid
    places.pop(ours, None)
    for pid in places.values():
        inside = ["nsenter", f"--target={pid}", "--net", "--", "nft", "list", "tables"]
        count += len(programs.run(inside).splitlines())
    return count
