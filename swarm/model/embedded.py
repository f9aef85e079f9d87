"""IPv6 addresses on overlays: the network's IPv6 subnet, with an IPv4 address as the last 32 bits. Pure.

In: addresses and subnets as texts. Out: the same of the other family.

Invariant: nobody keeps account of IPv6 addresses. Who has an IPv4 address on a network with an IPv6 subnet
has that one there too, so no two can have the same, and every host knows all of them.
Source: RFC 6052, section 2.2 (IPv4-embedded addresses, prefix /96), RFC 4193 (unique local addresses).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network

LONGEST_PREFIX = 96
"""What leaves room for an IPv4 address."""
SHORTEST_PREFIX = 16
SMALLEST_MTU = 1280
"""What every link that carries IPv6 must take (RFC 8200, section 5)."""


def embed(address: str, ipv6_subnet: str) -> str:
    """The IPv6 address that goes with an IPv4 one; empty where there is no subnet."""
    if not ipv6_subnet:
        return ""
    return str(_first(ipv6_subnet) + int(IPv4Address(address)))


def embedded(address: str, ipv6_subnet: str) -> str:
    """The IPv4 address in an IPv6 one of the subnet; empty where it is no such address."""
    found = str(IPv4Address(int(IPv6Address(address)) & 0xFFFF_FFFF))
    return found if embed(found, ipv6_subnet) == str(IPv6Address(address)) else ""


@lru_cache(maxsize=1024)
def _first(ipv6_subnet: str) -> IPv6Address:
    return IPv6Network(ipv6_subnet).network_address


def default_ipv6_subnet(cluster_id: str, vni: int) -> str:
    """A unique local /64 of the network's own: what two clusters choose hardly ever meets."""
    global_id = hashlib.sha256(cluster_id.encode()).digest()[:4]
    return str(IPv6Network((b"\xfd" + global_id + vni.to_bytes(3, "big") + bytes(8), 64)))
