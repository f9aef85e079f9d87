"""What this host is, as its agent tells the managers."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

from swarm import __version__
from swarm.model.types import EngineDescription, NodeDescription, Platform, Resources
from swarm.proto.identity import Identity
from swarm.proto.roots import identity_info

NANO = 10**9


def describe_host(identity: Identity, data_path_address: str) -> NodeDescription:
    return NodeDescription(
        hostname=socket.gethostname(),
        platform=Platform(architecture=platform.machine(), os="linux"),
        resources=Resources(nano_cpus=len(os.sched_getaffinity(0)) * NANO, memory_bytes=_memory_bytes()),
        engine=EngineDescription(engine_version=__version__),
        tls_info=identity_info(identity),
        data_path_address=data_path_address,
    )


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
