"""Services' virtual addresses on one overlay network: which rules make them lead to the tasks.

In: the services of the network. Out: text for `nft -f -` in the network's own namespace, either the
whole table or only what differs, for one transaction; and the shape that the table then has.

The table translates what is sent to a virtual address, on the host of the sender, to a task's address; it is
the bridge that carries it on. Replies are translated back on their way through the same bridge.

Invariant: every value that reaches the text is a number or a parsed address. A change touches the chains of
changed services only: the others keep their turn, and connections keep their task.

Source: docs/networking.md; nft(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from swarm.model.dataplane import DataPlane, NetworkService, ServiceBackend
from swarm.model.embedded import embed
from swarm.overlay.balance import Shape

VIRTUAL_TABLE = "inet swarm"
"""In the namespace of its network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualRules:
    """All that the table says. A virtual address without any task is refused by the namespace itself."""

    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Virtual address to the tasks' addresses, of either family."""

    @property
    def served(self) -> dict[str, tuple[str, ...]]:
        return {address: targets for address, targets in self.targets.items() if targets}

    @property
    def tasks(self) -> frozenset[str]:
        return frozenset(target for targets in self.targets.values() for target in targets)


def plan_virtual(services: Iterable[NetworkService], ipv6_subnet: str = "") -> VirtualRules:
    """The rules for the services of one network, for IPv6 too if it has a subnet of that."""
    targets = {
        str(ipaddress.IPv4Address(service.virtual_ip)): tuple(
            str(ipaddress.IPv4Address(backend.address)) for backend in trusted_backends(service.backends)
        )
        for service in services
        if service.virtual_ip
    }
    if not ipv6_subnet:
        return VirtualRules(targets=targets)
    beside = {
        embed(address, ipv6_subnet): tuple(embed(task, ipv6_subnet) for task in tasks)
        for address, tasks in targets.items()
    }
    return VirtualRules(targets=targets | beside)


def without_virtual(desired: DataPlane) -> DataPlane:
    """Every service's name gives its tasks, as with `dnsrr`."""
    return replace(desired, services=tuple(replace(each, virtual_ip="") for each in desired.services))


def trusted_backends(backends: tuple[ServiceBackend, ...]) -> tuple[ServiceBackend, ...]:
    """Those not under suspicion; all when all are: a wrong suspicion must not end a service."""
    return tuple(backend for backend in backends if not backend.suspect) or backends


def render_virtual(rules: VirtualRules) -> str:
    """The whole table in place of whatever is there, in one transaction."""
    lines = [f"add table {VIRTUAL_TABLE}", f"delete table {VIRTUAL_TABLE}", f"table {VIRTUAL_TABLE} {{"]
    for name, (kind, type_) in _SETS.items():
        lines.append(f"  {kind} {name} {{ type {type_}; }}")
    for name, (header, own) in _CHAINS.items():
        lines += [f"  chain {name} {{", f"    {header}; policy accept;"]
        lines += [*(f"    {rule}" for rule in own), "  }"]
    lines.append("}")
    return "".join(f"{line}\n" for line in [*lines, *_changes(VirtualRules(), rules)])


def change_virtual(former: VirtualRules, rules: VirtualRules) -> str:
    """Only what differs; empty when nothing does."""
    return "".join(f"{line}\n" for line in _changes(former, rules))


def shape_of_virtual(rules: VirtualRules) -> Shape:
    """The shape of the table that `render_virtual` gives."""
    sets = dict.fromkeys(_SETS, 0)
    for address in rules.served:
        sets[f"{_prefix(address)}services"] += 1
        sets[f"{_prefix(address)}addresses"] += 1
    for task in rules.tasks:
        sets[f"{_prefix(task)}tasks"] += 1
    chains = {name: len(own) for name, (_, own) in _CHAINS.items()}
    return Shape(chains=chains | {_chain(address): 1 for address in rules.served}, sets=sets)


def left_targets(former: VirtualRules, rules: VirtualRules) -> frozenset[str]:
    """Tasks that some virtual address led to and does no more: flows that may move should."""
    pairs = {(address, target) for address, targets in rules.targets.items() for target in targets}
    return frozenset(
        target
        for address, targets in former.targets.items()
        for target in targets
        if (address, target) not in pairs
    )


def opened_addresses(former: VirtualRules, rules: VirtualRules) -> frozenset[str]:
    """Virtual addresses that have a task now and had none: flows that were refused should begin anew."""
    return frozenset(rules.served.keys() - former.served.keys())


_SETS = {
    "services": ("map", "ipv4_addr : verdict"),
    "addresses": ("map", "ipv4_addr : ipv4_addr"),
    "tasks": ("set", "ipv4_addr . ipv4_addr"),
    "ipv6-services": ("map", "ipv6_addr : verdict"),
    "ipv6-addresses": ("map", "ipv6_addr : ipv6_addr"),
    "ipv6-tasks": ("set", "ipv6_addr . ipv6_addr"),
}
_CHAINS = {
    "prerouting": (
        "type nat hook prerouting priority -100",
        ("ip daddr vmap @services", "ip6 daddr vmap @ipv6-services"),
    ),
    # A task that reached itself: as from itself, it would answer itself and not the bridge.
    "postrouting": (
        "type nat hook postrouting priority 100",
        (
            "ip saddr . ip daddr @tasks snat ip to ct original ip daddr map @addresses",
            "ip6 saddr . ip6 daddr @ipv6-tasks snat ip6 to ct original ip6 daddr map @ipv6-addresses",
        ),
    ),
}


def _changes(former: VirtualRules, rules: VirtualRules) -> list[str]:
    before, after = former.served, rules.served
    lines: list[str] = []
    for address in before.keys() - after.keys():
        of = f"{VIRTUAL_TABLE} {_prefix(address)}"
        lines += [
            f"delete element {of}services {{ {address} }}",
            f"delete element {of}addresses {{ {address} }}",
            f"flush chain {VIRTUAL_TABLE} {_chain(address)}",
            f"delete chain {VIRTUAL_TABLE} {_chain(address)}",
        ]
    for address, targets in after.items():
        of = f"{VIRTUAL_TABLE} {_prefix(address)}"
        if address not in before:
            lines += [
                f"add chain {VIRTUAL_TABLE} {_chain(address)}",
                _balance(address, targets),
                f"add element {of}services {{ {address} : jump {_chain(address)} }}",
                f"add element {of}addresses {{ {address} : {address} }}",
            ]
        elif targets != before[address]:
            lines += [f"flush chain {VIRTUAL_TABLE} {_chain(address)}", _balance(address, targets)]
    for verb, tasks in (("delete", former.tasks - rules.tasks), ("add", rules.tasks - former.tasks)):
        lines += [f"{verb} element {VIRTUAL_TABLE} {_prefix(t)}tasks {{ {t} . {t} }}" for t in sorted(tasks)]
    return lines


def _balance(address: str, targets: tuple[str, ...]) -> str:
    turns = ", ".join(f"{turn} : {target}" for turn, target in enumerate(targets))
    return (
        f"add rule {VIRTUAL_TABLE} {_chain(address)} meta l4proto {{ tcp, udp, sctp }} "
        f"dnat {'ip6' if _prefix(address) else 'ip'} to numgen inc mod {len(targets)} map {{ {turns} }}"
    )


def _chain(address: str) -> str:
    return f"to-{ipaddress.ip_address(address).packed.hex()}" if ":" in address else f"to-{address}"


def _prefix(address: str) -> str:
    """Of the names of the sets that are for its family."""
    return "ipv6-" if ":" in address else ""
