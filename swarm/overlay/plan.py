"""What to change so that this host's overlay networks are as desired.

In: the desired `DataPlane`, what the kernel holds (`ObservedNetwork`), this host's data-path address.
Out: small operations, in the order in which `swarm.overlay.networks` performs them.

Invariant: performing the plan and planning again gives an empty plan, whatever was observed at first; a
network is taken down only when no task of this host is in it any more.

Source: docs/networking.md; VXLAN is RFC 7348, with every address told beforehand: nothing is flooded.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from swarm.base.errors import FailedPrecondition
from swarm.model.dataplane import DataPlane, OverlayNetwork
from swarm.model.embedded import embed

LEG_PREFIX = "swl"
"""How the names of the host's own links into overlays begin."""

VXLAN_OVERHEAD = 50
"""Bytes that VXLAN over IPv4 adds to a frame: 14 Ethernet, 20 IP, 8 UDP, 8 VXLAN."""
WIREGUARD_OVERHEAD = 80
"""Bytes that WireGuard adds to a packet: over IPv4 60, over IPv6 80; its own default is 1420 of 1500."""

GATEWAY_SUBNETS = tuple(f"172.{second}.0.0/16" for second in range(18, 32)) + tuple(
    f"192.168.{third}.0/20" for third in range(0, 256, 16)
)
"""What this host's gateway network may be, in order of preference: none of it is seen by other hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """What makes a VXLAN link; `local` is the address that its packets leave from."""

    vni: int
    local: str
    port: int
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedNetwork:
    """What the kernel holds of one overlay network."""

    network_id: str
    has_bridge: bool = False
    tunnel: Tunnel | None = None
    leg: str = ""
    """The host's own leg: its address in CIDR, empty when there is none or half of one."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Address on the overlay to host; an empty host means that the entry is not whole."""
    virtual: frozenset[str] = frozenset()
    """Virtual addresses that the bridge answers for."""
    routes: frozenset[str] = frozenset()
    """Where the bridge leads to, in CIDR."""
    task_ports: frozenset[str] = frozenset()
    """Names of the bridge ports of this host's tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSandbox:
    network_id: str
    mtu: int
    with_ipv6: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTunnel:
    """Make the VXLAN link, in place of one that differs. Its forwarding entries start empty."""

    network_id: str
    tunnel: Tunnel
    encrypted: bool = False
    """Made in the namespace whose only way out is WireGuard. Its port is the next one, so that it is told
    from a link made elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLeg:
    network_id: str
    name: str
    address: str
    """CIDR."""
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteLeg:
    network_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEndpoint:
    network_id: str
    address: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteEndpoint:
    network_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVirtual:
    """Virtual addresses that the bridge comes to answer for, or ceases to."""

    network_id: str
    routes: tuple[str, ...] = ()
    """Subnets (CIDR) to which the bridge gets a way, so that what was translated reaches a task."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSandbox:
    network_id: str


Op = (
    CreateSandbox | SetTunnel | SetLeg | DeleteLeg | SetEndpoint | DeleteEndpoint | SetVirtual | RemoveSandbox
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The host's side of every tunnel."""

    address: str
    mtu: int


def planned_part(desired: DataPlane) -> object:
    """All that `plan_networks` looks at: while it is the same, nothing of a network is to be changed."""
    virtual = frozenset((each.network_id, each.virtual_ip) for each in desired.services)
    return desired.networks, virtual


def plan_networks(
    desired: DataPlane, observed: Mapping[str, ObservedNetwork], underlay: Underlay
) -> tuple[Op, ...]:
    """The operations from `observed` to `desired`; removals first: a VNI may pass to another network."""
    wanted = {network.id: network for network in desired.networks}
    virtual: dict[str, set[str]] = {}
    for service in desired.services:
        if service.virtual_ip:
            virtual.setdefault(service.network_id, set()).add(service.virtual_ip)
    ops: list[Op] = [
        RemoveSandbox(network_id=network_id)
        for network_id, found in observed.items()
        if network_id not in wanted and not found.task_ports
    ]
    for network_id, network in wanted.items():
        found = observed.get(network_id, ObservedNetwork(network_id=network_id))
        bare = ObservedNetwork(network_id=network_id)
        ops.extend(_plan_network(network, found, underlay))
        ops.extend(
            _plan_virtual(network, found if found.has_bridge else bare, virtual.get(network_id, set()))
        )
    return tuple(ops)


def link_mtu(network: OverlayNetwork, underlay_mtu: int) -> int:
    """Of the network's links: what is asked for, as far as the hosts' network has room for it."""
    room = underlay_mtu - VXLAN_OVERHEAD - (WIREGUARD_OVERHEAD if network.encrypted else 0)
    return min(network.mtu or room, room)


def _plan_network(network: OverlayNetwork, found: ObservedNetwork, underlay: Underlay) -> Iterator[Op]:
    mtu = link_mtu(network, underlay.mtu)
    if not found.has_bridge:
        yield CreateSandbox(network_id=network.id, mtu=mtu, with_ipv6=bool(network.ipv6_subnet))
        found = ObservedNetwork(network_id=network.id)
    port = network.data_path_port + network.encrypted
    tunnel = Tunnel(vni=network.vni, local=underlay.address, port=port, mtu=mtu)
    is_new_tunnel = found.tunnel != tunnel
    if is_new_tunnel:
        yield SetTunnel(network_id=network.id, tunnel=tunnel, encrypted=network.encrypted)
    leg = with_prefix(network.host_address, network.subnets) if network.host_address else ""
    if leg and leg != found.leg:
        yield SetLeg(network_id=network.id, name=leg_name(network.vni), address=leg, mtu=mtu)
    elif found.leg and not leg:
        yield DeleteLeg(network_id=network.id, name=leg_name(network.vni))
    remote = {
        address: e.host
        for e in network.endpoints
        if e.host != underlay.address
        for address in addresses_of(e.address, network)
    }
    known = {} if is_new_tunnel else found.endpoints
    for address in known:
        if address not in remote:
            yield DeleteEndpoint(network_id=network.id, address=address)
    for address, host in remote.items():
        if known.get(address) != host:
            yield SetEndpoint(network_id=network.id, address=address, host=host)


def _plan_virtual(network: OverlayNetwork, found: ObservedNetwork, virtual: Set[str]) -> Iterator[Op]:
    wanted = {address for each in virtual for address in addresses_of(each, network)}
    added, removed = wanted - found.virtual, found.virtual - wanted
    routes = tuple(subnet for subnet in network.all_subnets if virtual and subnet not in found.routes)
    if added or removed or routes:
        yield SetVirtual(
            network_id=network.id, routes=routes, added=tuple(sorted(added)), removed=tuple(sorted(removed))
        )


def addresses_of(address: str, network: OverlayNetwork) -> tuple[str, ...]:
    """An IPv4 address on the network, and the IPv6 address beside it."""
    return (address, embed(address, network.ipv6_subnet)) if network.ipv6_subnet else (address,)


def mac_of(address: str) -> str:
    """The MAC of whoever has `address` on an overlay or gateway network: 02:42 and its last 32 bits."""
    return "02:42:" + _last_32_bits(address).hex(":")


def address_of(mac: str) -> str:
    return ".".join(map(str, bytes.fromhex(mac.replace(":", "")[4:])))


def with_prefix(address: str, subnets: Iterable[str]) -> str:
    """`address` in CIDR, with the prefix of the subnet that it is in."""
    own = ipaddress.IPv4Address(address)
    prefix = next(found.prefixlen for found in map(ipaddress.IPv4Network, subnets) if own in found)
    return f"{own}/{prefix}"


def leg_name(vni: int) -> str:
    """The host's end of its leg into an overlay; the firewall's rules match the prefix."""
    return f"{LEG_PREFIX}{vni:06x}"


def port_name(prefix: str, address: str) -> str:
    """A task's bridge port is named by its IPv4 address, so the kernel itself refuses a second user of it."""
    return prefix + _last_32_bits(address).hex()


def _last_32_bits(address: str) -> bytes:
    """`ipaddress` is slow, and a large network's thousands of addresses are looked at in each change."""
    if ":" in address:
        return ipaddress.IPv6Address(address).packed[-4:]
    return bytes(map(int, address.split(".")))


def choose_subnet(in_use: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first candidate that overlaps nothing this host has an address in or a route to."""
    busy = list(in_use)
    for candidate in map(ipaddress.IPv4Network, GATEWAY_SUBNETS):
        if not any(candidate.overlaps(network) for network in busy):
            return candidate
    raise FailedPrecondition(
        "every private subnet that swarm would take for its gateway network is in use on this host: give one"
    )
