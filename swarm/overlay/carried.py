"""Which of the networks this host cannot carry, and why. Pure.

In: the desired networks, what the host can. Out: a sentence by network id, for the tasks that are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarm.model.dataplane import OverlayNetwork
from swarm.model.embedded import SMALLEST_MTU
from swarm.overlay.plan import link_mtu


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAbilities:
    encryption_problem: str = ""
    """Why it cannot encrypt; empty if it can."""
    has_ipv6: bool = True
    wire_mtu: int = 1500


def refused_networks(networks: Iterable[OverlayNetwork], host: HostAbilities) -> dict[str, str]:
    return {network.id: why for network in networks if (why := _why_not(network, host))}


def _why_not(network: OverlayNetwork, host: HostAbilities) -> str:
    if network.encrypted and host.encryption_problem:
        return f"network {network.name} is encrypted, and this host cannot encrypt: {host.encryption_problem}"
    if not network.ipv6_subnet:
        return ""
    if not host.has_ipv6:
        return f"network {network.name} has IPv6, and this host's kernel has none: boot it with IPv6"
    if link_mtu(network, host.wire_mtu) < SMALLEST_MTU:
        return (
            f"network {network.name} has IPv6, which needs links of {SMALLEST_MTU} bytes: this host's "
            f"network leaves {link_mtu(network, host.wire_mtu)}"
        )
    return ""
