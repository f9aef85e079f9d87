"""The host's firewall table: who answers on a published port, and what tasks may reach.

In: published ports with their backends, the tasks' host ports, the gateway network. Out: text for `nft -f -`,
either the whole table or only what differs, for one transaction; and the shape that the table then has.

Invariant: every value that reaches the text is a number, a parsed address, or a constant: no user's string
can become a rule. A change touches the chains of changed ports only, so the other ports keep their turn.

Source: docs/networking.md; nft(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swarm.model.dataplane import Backend, DataPlane, PublishedPort
from swarm.model.types import Protocol
from swarm.overlay.records import TaskRecord

TABLE = "ip swarm"
_PORT_KEY = "meta l4proto . th dport"
_CLUSTER_PORTS = "{ 2377, 2378, 2381, 2382 }"
"""Where managers serve joins, nodes, and their etcd."""
_TO_US = "fib daddr type local"
PROXY_PORT = 2385
"""Where this host's proxy listens, on its address in the gateway network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A port of this host."""

    protocol: Protocol
    port: int

    def __str__(self) -> str:
        return f"{self.protocol.value} . {int(self.port)}"

    @property
    def chain(self) -> str:
        return f"port-{self.protocol.value}-{int(self.port)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    address: str
    port: int
    by_gateway: str = ""
    """Of a task here whose clients' addresses are to be kept: where it is on the gateway network."""

    def __str__(self) -> str:
        return _place(self.address, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All that the table says. `published` may hold ports without any target: they are refused at once."""

    gateway_subnet: str
    tunnel_ports: tuple[int, ...] = ()
    """UDP ports of the overlays' tunnels, which no task may use."""
    published: Mapping[Key, tuple[Target, ...]] = field(default_factory=dict)
    host_ports: Mapping[Key, Target] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Rules per chain and elements per set: enough to see that somebody flushed or cut the table."""

    chains: Mapping[str, int]
    sets: Mapping[str, int]


def plan_rules(
    desired: DataPlane, records: Sequence[TaskRecord], gateway_subnet: str, *, has_proxy: bool = True
) -> Rules:
    """Without this host's proxy, ports that need it are refused: another program may be in its place."""
    proxy = (Target(address=proxy_address(gateway_subnet), port=PROXY_PORT),) if has_proxy else ()
    by_gateway = [record for record in records if not record.is_internal]
    here = {
        _bare(a): r.gateway_address for r in by_gateway for given in r.attachments for a in given.addresses
    }
    return Rules(
        gateway_subnet=str(ipaddress.IPv4Network(gateway_subnet)),
        tunnel_ports=tuple(sorted({network.data_path_port for network in desired.networks})),
        published={
            Key(protocol=port.protocol, port=port.published_port): _targets_of(port, here, proxy)
            for port in desired.ports
        },
        host_ports={
            Key(protocol=port.protocol, port=port.published_port): Target(
                address=record.gateway_address, port=port.target_port
            )
            for record in reversed(records)  # of two in one slot, the older still has its ports
            for port in record.host_ports
        },
    )


def _targets_of(
    port: PublishedPort, here: Mapping[str, str], proxy: tuple[Target, ...]
) -> tuple[Target, ...]:
    """`here`: where tasks of this host are on the gateway network, by their addresses on others."""
    if port.proxy_protocol:
        return proxy if port.backends else ()
    return tuple(
        Target(
            address=backend.address,
            port=port.target_port,
            by_gateway=here.get(backend.address, "") if port.preserves_source else "",
        )
        for backend in choose_backends(port.backends)
    )


def proxy_address(gateway_subnet: str) -> str:
    """The host's own on the gateway network."""
    return str(ipaddress.IPv4Network(gateway_subnet).network_address + 1)


def _bare(address: str) -> str:
    return address.partition("/")[0]


def choose_backends(backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """Those not under suspicion; all when all are: a wrong suspicion must not close the port."""
    return tuple(backend for backend in backends if not backend.suspect) or backends


def render_table(rules: Rules) -> str:
    """The whole table in place of whatever is there, in one transaction."""
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    for name, (kind, type_) in _SETS.items():
        lines.append(f"  {kind} {name} {{ type {type_}; }}")
    for name, chain in _base_chains(rules).items():
        lines += [f"  chain {name} {{", f"    {chain.header}; policy accept;"]
        lines += [f"    {rule}" for rule in chain.rules]
        lines.append("  }")
    lines.append("}")
    for key, targets in rules.published.items():
        lines += _open_port(key, targets)
    for key, target in rules.host_ports.items():
        lines.append(f"add element {TABLE} host_ports {{ {key} : {target} }}")
    return "\n".join(lines) + "\n"


def render_change(old: Rules, new: Rules) -> str:
    """Only what differs; empty when nothing does."""
    if (old.gateway_subnet, old.tunnel_ports) != (new.gateway_subnet, new.tunnel_ports):
        return render_table(new)
    lines = _change_published(old.published, new.published)
    for key, target in old.host_ports.items():
        if new.host_ports.get(key) != target:
            lines.append(f"delete element {TABLE} host_ports {{ {key} }}")
    for key, target in new.host_ports.items():
        if old.host_ports.get(key) != target:
            lines.append(f"add element {TABLE} host_ports {{ {key} : {target} }}")
    return "".join(line + "\n" for line in lines)


def _change_published(
    old: Mapping[Key, tuple[Target, ...]], new: Mapping[Key, tuple[Target, ...]]
) -> list[str]:
    lines: list[str] = []
    for key, targets in old.items():
        if key not in new:
            lines += _close_port(key, targets)
    for key, targets in new.items():
        former = old.get(key)
        if former is None:
            lines += _open_port(key, targets)
        elif bool(targets) != bool(former):
            lines += _close_port(key, former) + _open_port(key, targets)
        elif targets != former:
            lines += [f"flush chain {TABLE} {key.chain}", *_balance(key, targets)]
    return lines


def shape_of(rules: Rules) -> Shape:
    """The shape of the table that `render_table` gives."""
    served = {key: targets for key, targets in rules.published.items() if targets}
    chains = {name: len(chain.rules) for name, chain in _base_chains(rules).items()}
    return Shape(
        chains=chains | {key.chain: len(_balance(key, targets)) for key, targets in served.items()},
        sets={
            "published": len(served),
            "unserved": len(rules.published) - len(served),
            "host_ports": len(rules.host_ports),
        },
    )


def dropped_targets(old: Rules, new: Rules) -> frozenset[tuple[Protocol, str]]:
    """(protocol, address) of targets that serve no more: their half-open flows should move on."""
    return _targets(old) - _targets(new)


def opened_ports(old: Rules, new: Rules) -> frozenset[Key]:
    """Ports that have a target now and had none: flows that were not translated should begin anew."""
    return _served(new) - _served(old)


def _targets(rules: Rules) -> frozenset[tuple[Protocol, str]]:
    pairs = [
        (key.protocol, address)
        for key, targets in rules.published.items()
        for target in targets
        for address in (target.address, target.by_gateway)
        if address
    ]
    return frozenset(pairs + [(key.protocol, t.address) for key, t in rules.host_ports.items()])


def _served(rules: Rules) -> frozenset[Key]:
    return frozenset(key for key, targets in rules.published.items() if targets) | rules.host_ports.keys()


def _open_port(key: Key, targets: tuple[Target, ...]) -> list[str]:
    if not targets:
        return [f"add element {TABLE} unserved {{ {key} }}"]
    return [
        f"add chain {TABLE} {key.chain}",
        *_balance(key, targets),
        f"add element {TABLE} published {{ {key} : jump {key.chain} }}",
    ]


def _close_port(key: Key, targets: tuple[Target, ...]) -> list[str]:
    if not targets:
        return [f"delete element {TABLE} unserved {{ {key} }}"]
    return [
        f"delete element {TABLE} published {{ {key} }}",
        f"flush chain {TABLE} {key.chain}",
        f"delete chain {TABLE} {key.chain}",
    ]


def _balance(key: Key, targets: tuple[Target, ...]) -> list[str]:
    """One rule; two where clients' addresses are kept, as the gateway's ports are kept apart."""
    plain = _turns(key, [_place(target.address, target.port) for target in targets])
    if not any(target.by_gateway for target in targets):
        return [f"add rule {TABLE} {key.chain} {plain}"]
    kept = _turns(key, [_place(target.by_gateway or target.address, target.port) for target in targets])
    return [
        f'add rule {TABLE} {key.chain} iifname "swarm-gw" {plain}',
        f"add rule {TABLE} {key.chain} {kept}",
    ]


def _turns(key: Key, places: Sequence[str]) -> str:
    turns = ", ".join(f"{turn} : {place}" for turn, place in enumerate(places))
    return f"meta l4proto {key.protocol.value} dnat ip to numgen inc mod {len(places)} map {{ {turns} }}"


def _place(address: str, port: int) -> str:
    return f"{ipaddress.IPv4Address(address)} . {int(port)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    header: str
    rules: tuple[str, ...]


_SETS = {
    "published": ("map", "inet_proto . inet_service : verdict"),
    "host_ports": ("map", "inet_proto . inet_service : ipv4_addr . inet_service"),
    "unserved": ("set", "inet_proto . inet_service"),
}


def _base_chains(table: Rules) -> dict[str, _Chain]:
    """The rules that do not depend on ports. `swl*`: the host's legs in overlays; `swarm-gw`: the gateway."""
    tunnels = [f"udp dport {int(port)} drop" for port in table.tunnel_ports]
    translate = (
        f"{_TO_US} dnat ip to {_PORT_KEY} map @host_ports",
        f"{_TO_US} {_PORT_KEY} vmap @published",
    )
    return {
        # route_localnet lets replies to 127.0.0.1 in through our links; nobody else may use that.
        "guard": _Chain(
            header="type filter hook prerouting priority -300",
            rules=(
                'iifname { "swl*", "swarm-gw" } ip daddr 127.0.0.0/8 drop',
                'iifname { "swl*", "swarm-gw" } ip saddr 127.0.0.0/8 drop',
            ),
        ),
        "prerouting": _Chain(header="type nat hook prerouting priority -100", rules=translate),
        "output": _Chain(header="type nat hook output priority -100", rules=translate),
        "input": _Chain(
            header="type filter hook input priority -1",
            rules=(
                # The cluster's own ports and the tunnels are not for tasks.
                f'iifname {{ "swl*", "swarm-gw" }} tcp dport {_CLUSTER_PORTS} drop',
                *(
                    f'iifname {{ "swl*", "swarm-gw" }} udp dport {int(port)} drop'
                    for port in table.tunnel_ports
                ),
                f"meta l4proto tcp {_TO_US} {_PORT_KEY} @unserved reject with tcp reset",
                f"{_TO_US} {_PORT_KEY} @unserved reject",
                # A leg carries the balancer's traffic; this host's services are not on the overlay.
                'iifname "swl*" ct state established,related accept',
                'iifname "swl*" drop',
            ),
        ),
        "forward": _Chain(
            header="type filter hook forward priority -1",
            rules=(
                # A task that sends tunnel packets would speak as its host.
                *(f'iifname "swarm-gw" {tunnel}' for tunnel in tunnels),
                # Nor may it knock at other hosts, which would take it for this one.
                f'iifname "swarm-gw" oifname != {{ "swl*", "swarm-gw" }} tcp dport {_CLUSTER_PORTS} drop',
                "ct status dnat accept",
                'iifname { "swl*", "swarm-gw" } ct state established,related accept',
                'oifname { "swl*", "swarm-gw" } ct state established,related accept',
                'oifname { "swl*", "swarm-gw" } drop',
                'iifname "swl*" drop',
            ),
        ),
        "postrouting": _Chain(
            header="type nat hook postrouting priority 100",
            rules=(
                'oifname "swl*" masquerade',
                'oifname "swarm-gw" ip saddr 127.0.0.0/8 masquerade',
                f'oifname "swarm-gw" ip saddr {table.gateway_subnet} ct status dnat masquerade',
                f'oifname != "swarm-gw" ip saddr {table.gateway_subnet} masquerade',
            ),
        ),
    }
