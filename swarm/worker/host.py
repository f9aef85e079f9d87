"""What this host is, as its agent tells the managers."""

from __future__ import annotations

import os
import platform
import socket
import sys
from ipaddress import IPv4Network, collapse_addresses
from pathlib import Path

from swarm import __version__
from swarm.model.host_offer import HostOffer
from swarm.model.types import EngineDescription, NodeDescription, Platform, Resources
from swarm.overlay.plan import LEG_PREFIX
from swarm.proto.identity import Identity
from swarm.proto.roots import identity_info
from swarm.worker.task_config import NodeFacts

NANO = 10**9
ROUTES = Path("/proc/net/route")
SUBNETS_LIMIT = 256


def describe_host(identity: Identity, data_path_address: str, offer: HostOffer) -> NodeDescription:
    return NodeDescription(
        hostname=socket.gethostname(),
        platform=Platform(architecture=platform.machine(), os="linux"),
        resources=Resources(
            nano_cpus=len(os.sched_getaffinity(0)) * NANO,
            memory_bytes=_memory_bytes(),
            generic_resources=offer.generic_resources,
        ),
        engine=EngineDescription(engine_version=__version__, labels=offer.labels),
        tls_info=identity_info(identity),
        data_path_address=data_path_address,
        subnets=host_subnets(_read(ROUTES)),
    )


def host_subnets(routes: str) -> tuple[str, ...]:
    """What the host has routes to, but for the default one and for those into overlays.

    `routes` is /proc/net/route, whose numbers are in the byte order of this machine.
    """
    found = set()
    for line in routes.splitlines()[1:]:
        interface, destination, *_, mask, _, _, _ = line.split()
        if not interface.startswith(LEG_PREFIX) and int(mask, 16):
            number, bits = (int(word, 16).to_bytes(4, sys.byteorder) for word in (destination, mask))
            found.add(IPv4Network((number, int.from_bytes(bits, "big").bit_count())))
    # A router of the internet's backbone is no place for tasks; its whole table is no news for managers.
    return tuple(map(str, sorted(collapse_addresses(found))[:SUBNETS_LIMIT]))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def node_facts(resolv_conf: Path = Path("/etc/resolv.conf")) -> NodeFacts:
    """What containers get from this host. A name server on its loopback they cannot reach themselves."""
    try:
        lines = resolv_conf.read_text().splitlines()
    except OSError:
        lines = []
    found = [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]
    return NodeFacts(
        hostname=socket.gethostname(),
        architecture=platform.machine(),
        nameservers=tuple(address for address in found if not address.startswith(("127.", "::1"))),
        resolvers=tuple(found),
    )


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
