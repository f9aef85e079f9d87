"""What the machine offers: which OCI runtime can run here and why, and the facts the OCI configuration needs.

Invariant: a missing feature is said in one sentence with its way out, never assumed away.
"""

from __future__ import annotations

import platform
import resource
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from swarm.base.errors import FailedPrecondition
from swarm.model.container_rules import CAPABILITIES, ULIMITS
from swarm.worker.runtime.resolved import MASKED_PATHS, HostFacts

CGROUP_ROOT = Path("/sys/fs/cgroup")
_INITS = ("catatonit", "tini-static", "docker-init")
"""Static programs that run in any image."""


class CgroupMode(StrEnum):
    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeChoice:
    name: str
    program: Path
    conmon: Path
    cgroup_mode: CgroupMode
    reason: str
    """One sentence for `swarm system info`."""


def cgroup_mode(mounts: str) -> CgroupMode:
    """The cgroup layout as /proc/self/mounts (`mounts`) shows it. Pure."""
    kinds: dict[str, str] = {}
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[1].startswith(str(CGROUP_ROOT)):
            kinds[fields[1]] = fields[2]
    if kinds.get(str(CGROUP_ROOT)) == "cgroup2":
        return CgroupMode.V2
    if "cgroup" not in kinds.values():
        return CgroupMode.NONE
    return CgroupMode.HYBRID if kinds.get(f"{CGROUP_ROOT}/unified") == "cgroup2" else CgroupMode.V1


def choose_runtime(
    *, mode: CgroupMode, crun: str | None, runc: str | None, conmon: str | None
) -> RuntimeChoice:
    """The runtime to use, given where the programs are (None: not installed). Pure.

    Raises:
        FailedPrecondition: containers cannot run here; says what to install or change.
    """
    if conmon is None:
        raise FailedPrecondition("conmon is not installed: install the package conmon")
    if mode is CgroupMode.NONE:
        raise FailedPrecondition(f"no cgroups are mounted at {CGROUP_ROOT}: mount them, containers need them")
    if crun is not None and mode is not CgroupMode.HYBRID:
        name, program, reason = "crun", crun, f"crun is installed and runs on cgroup {mode}"
    elif runc is not None:
        name, program = "runc", runc
        reason = "crun is not installed" if crun is None else _HYBRID
    elif crun is not None:
        raise FailedPrecondition(f"{_HYBRID}; or install the package runc")
    else:
        raise FailedPrecondition("no OCI runtime is installed: install the package crun")
    return RuntimeChoice(
        name=name, program=Path(program), conmon=Path(conmon), cgroup_mode=mode, reason=reason
    )


_HYBRID = (
    f"crun refuses hybrid cgroups (v1 with a v2 tree at {CGROUP_ROOT}/unified): "
    f"unmount {CGROUP_ROOT}/unified where swarmd runs, or boot with systemd.unified_cgroup_hierarchy=1"
)


def detect_runtime() -> RuntimeChoice:
    """`choose_runtime` for this machine."""
    mode = cgroup_mode(Path("/proc/self/mounts").read_text())
    which = shutil.which
    return choose_runtime(mode=mode, crun=which("crun"), runc=which("runc"), conmon=which("conmon"))


def detect_facts() -> HostFacts:
    swap_files: Iterable[Path] = (CGROUP_ROOT / "memory" / "memory.memsw.limit_in_bytes", Path("/proc/swaps"))
    v1_swap, v2_marker = swap_files
    is_v2 = (CGROUP_ROOT / "cgroup.controllers").exists()
    throttles = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    masked = [path for path in MASKED_PATHS if Path(path).exists()]
    return HostFacts(
        architecture=platform.machine(),
        swap_limit=v2_marker.exists() if is_v2 else v1_swap.exists(),
        swappiness=not is_v2 and (CGROUP_ROOT / "memory" / "memory.swappiness").exists(),
        masked_paths=(*masked, *sorted(str(path) for path in throttles)),
        capabilities=(own := capabilities_of(Path("/proc/self/status").read_text())),
        hard_limits={} if "CAP_SYS_RESOURCE" in own else _hard_limits(),
        oom_score_adj=-1000 if "CAP_SYS_RESOURCE" in own else _number(Path("/proc/self/oom_score_adj")),
        init=next((Path(found) for name in _INITS if (found := shutil.which(name))), None),
    )


def capabilities_of(status: str) -> frozenset[str]:
    """The effective capabilities that /proc/<pid>/status shows. Pure."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    mask = int(fields["CapEff"], 16)
    return frozenset(f"CAP_{name}" for number, name in enumerate(CAPABILITIES) if mask >> number & 1)


def _hard_limits() -> dict[str, int]:
    kinds = {name: getattr(resource, f"RLIMIT_{name.upper()}", None) for name in ULIMITS}
    return {name: resource.getrlimit(kind)[1] for name, kind in kinds.items() if kind is not None}


def _number(path: Path) -> int:
    return int(path.read_text())
