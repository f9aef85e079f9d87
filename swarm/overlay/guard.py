"""What stands at the tasks' bridge ports: nobody speaks under another's address. Pure.

In: the places of this host's tasks on one bridge. Out: text for `nft -f -`, and the shape that the table has.

A frame passes if it comes from its port's own MAC and address: IPv4, ARP, and IPv6 where the network has it.
Everything else that a task may invent is dropped before the bridge learns of it: what comes from link-local
addresses (as routers' advertisements and redirections do), and advertisements of addresses not its own. A
place is made of its address alone, so one that is left in the set after its task has gone permits nothing to
anybody else.

Invariant: every value that reaches the text is a parsed address or made from one.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from swarm.overlay.balance import Shape
from swarm.overlay.plan import mac_of, port_name
from swarm.overlay.records import TaskRecord

GUARD_TABLE = "bridge swarm"
TASK_PORT, GATEWAY_PORT = "p", "swg"
"""How the names of tasks' ports begin, on an overlay's bridge and on the gateway's."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A task's port and an address that it may speak under."""

    port: str
    mac: str
    address: str

    def elements(self) -> Iterator[tuple[str, str]]:
        """What it puts into which set."""
        is_ipv6 = ":" in self.address
        yield "ipv6_places" if is_ipv6 else "places", f'"{self.port}" . {self.mac} . {self.address}'
        if is_ipv6:
            yield "advertised", f'"{self.port}" . 0x{int(ipaddress.IPv6Address(self.address)):032x}'


def gateway_places(records: Iterable[TaskRecord]) -> frozenset[Place]:
    return frozenset(
        _place(GATEWAY_PORT, record.gateway_address, record.gateway_address)
        for record in records
        if not record.is_internal
    )


def overlay_places(records: Iterable[TaskRecord], network_id: str) -> frozenset[Place]:
    return frozenset(
        _place(TASK_PORT, _bare(attachment.addresses[0]), _bare(address))
        for record in records
        for attachment in record.attachments
        if attachment.network_id == network_id
        for address in attachment.addresses
    )


def render_guard(prefix: str, places: Iterable[Place]) -> str:
    """The whole table in place of whatever is there, in one transaction."""
    lines = [
        f"add table {GUARD_TABLE}",
        f"delete table {GUARD_TABLE}",
        f"table {GUARD_TABLE} {{",
        *(f"  set {name} {{ {kind}; }}" for name, kind in _SETS.items()),
        "  chain prerouting {",
        "    type filter hook prerouting priority -300; policy accept;",
        *(f"    {rule}" for rule in _rules(prefix)),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n" + render_places(places)


def render_places(places: Iterable[Place]) -> str:
    """More places, beside those there are."""
    return "".join(
        f"add element {GUARD_TABLE} {name} {{ {element} }}\n"
        for place in sorted(places)
        for name, element in place.elements()
    )


def shape_of_guard(prefix: str, places: frozenset[Place]) -> Shape:
    named = Counter(name for place in places for name, _ in place.elements())
    return Shape(chains={"prerouting": len(_rules(prefix))}, sets={name: named[name] for name in _SETS})


_SETS = {
    "places": "type ifname . ether_addr . ipv4_addr",
    "ipv6_places": "type ifname . ether_addr . ipv6_addr",
    "advertised": "typeof iifname . @th,64,128",
}


def _rules(prefix: str) -> tuple[str, ...]:
    return (
        f'iifname != "{prefix}*" accept',
        "ether type ip iifname . ether saddr . ip saddr @places accept",
        "ether type arp iifname . ether saddr . arp saddr ip @places "
        "iifname . arp saddr ether . arp saddr ip @places accept",
        # The 16 bytes behind the first 8 of the message: the address that is advertised.
        "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @advertised drop",
        "ether type ip6 iifname . ether saddr . ip6 saddr @ipv6_places accept",
        "drop",
    )


def _place(prefix: str, of: str, address: str) -> Place:
    return Place(port_name(prefix, of), mac_of(of), str(ipaddress.ip_address(address)))


def _bare(address: str) -> str:
    return str(ipaddress.ip_interface(address).ip)
