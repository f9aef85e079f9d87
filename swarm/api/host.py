"""What `info` and `version` say of the machine. Read once per process but for the host name."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    kernel: str
    operating_system: str
    os_version: str
    architecture: str
    """As the kernel calls it: x86_64."""
    cpus: int
    memory_bytes: int
    cgroup_version: str


GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@cache
def host_facts() -> HostFacts:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    uname = os.uname()
    is_unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return HostFacts(
        kernel=uname.release,
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        architecture=uname.machine,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version="2" if is_unified else "1",
    )


def hostname() -> str:
    return os.uname().nodename
