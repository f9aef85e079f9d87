"""What the names of a task's networks stand for. Pure.

In: the services of each network, a question. Out: records, an empty answer, that there is no such name, or
that it is to be asked elsewhere.

Invariant: a task sees the names of its own networks, those of the first it is on first, and no other's. Names
stand for healthy running tasks only; one that is known and has none now gives an empty answer.

Source: docs/networking.md; Docker's names for services, tasks and containers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.model.dataplane import NetworkService
from swarm.model.embedded import embed, embedded
from swarm.overlay.dns.wire import (
    NO_ERROR,
    NO_SUCH_NAME,
    TYPE_A,
    TYPE_AAAA,
    TYPE_ANY,
    TYPE_PTR,
    WireError,
    pack_name,
    reversed_address,
)
from swarm.overlay.virtual import trusted_backends

TASKS = "tasks."
"""`tasks.web` stands for the tasks of `web`, whatever `web` itself stands for."""


@dataclass(frozen=True, slots=True)
class NetworkNames:
    """The names on one network."""

    name: str = ""
    """The network's own: `web.front` asks for `web` on the network `front` only."""
    subnets: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    ipv6_subnet: str = ""
    """Empty where it has IPv4 only."""
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names in lower case to addresses of IPv4, from which those of IPv6 follow; a service without a healthy
    task has none."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Address of IPv4 to the name of whoever has it."""


@dataclass(frozen=True, slots=True)
class Answer:
    code: int = NO_ERROR
    data: tuple[bytes, ...] = ()
    """Of records of the type that was asked for."""


@dataclass(frozen=True, slots=True)
class View:
    """What one task may ask."""

    networks: tuple[NetworkNames, ...] = ()
    forwards: bool = False
    """Names of nobody here may be asked elsewhere."""


def network_names(name: str, subnets: Iterable[str], services: Iterable[NetworkService]) -> NetworkNames:
    addresses: dict[str, dict[str, None]] = {}  # dicts for their order and quick lookup
    owners: dict[str, str] = {}
    for service in services:
        backends = trusted_backends(service.backends)
        tasks = [backend.address for backend in backends]
        front = [service.virtual_ip] if service.virtual_ip and tasks else tasks
        named = [(TASKS + service.name, tasks), *((n, front) for n in (service.name, *service.aliases))]
        named += [(own, [backend.address]) for backend in backends for own in backend.names]
        for each, found in named:
            addresses.setdefault(each.lower(), {}).update(dict.fromkeys(found))
        owners |= {backend.address: backend.names[0] for backend in backends if backend.names}
        if service.virtual_ip:
            owners[service.virtual_ip] = service.name
    ranges = tuple(subnets)
    return NetworkNames(
        name=name.lower(),
        subnets=tuple(map(ipaddress.ip_network, ranges)),
        ipv6_subnet=next((subnet for subnet in ranges if ":" in subnet), ""),
        addresses={each: tuple(found) for each, found in addresses.items()},
        owners={address: f"{owner}.{name}" if name else owner for address, owner in owners.items()},
    )


def answer(view: View, name: str, kind: int) -> Answer | None:
    """None when the question is to be asked elsewhere."""
    address = reversed_address(name)
    found = _whose(view.networks, address) if address else _where(view.networks, name, kind)
    if found is None:
        return None if view.forwards else Answer(code=NO_SUCH_NAME)
    wanted = (TYPE_PTR,) if address else (TYPE_A, TYPE_AAAA, TYPE_ANY)
    return found if kind in wanted else Answer(code=found.code)


def _where(networks: Sequence[NetworkNames], name: str, kind: int) -> Answer | None:
    """The addresses on the first network on which the name has any: of both families on the same one."""
    is_known = False
    for network in networks:
        own = name.removesuffix(f".{network.name}") if network.name else name
        found = network.addresses.get(name, network.addresses.get(own))
        if found and kind == TYPE_AAAA:
            found = tuple(filter(None, (embed(address, network.ipv6_subnet) for address in found)))
            return Answer(data=tuple(ipaddress.IPv6Address(address).packed for address in found))
        if found:
            return Answer(data=tuple(ipaddress.IPv4Address(address).packed for address in found))
        is_known |= found is not None
    return Answer() if is_known else None


def _whose(networks: Sequence[NetworkNames], address: str) -> Answer | None:
    number = ipaddress.ip_address(address)
    for network in networks:
        if owner := network.owners.get(_ipv4_of(network, address)):
            try:
                return Answer(data=(pack_name(owner),))
            except WireError:  # a name that DNS cannot carry
                return Answer()
    if any(number in subnet for network in networks for subnet in network.subnets):
        return Answer(code=NO_SUCH_NAME)
    return None


def _ipv4_of(network: NetworkNames, address: str) -> str:
    """Under which address its owner is known; empty if it cannot be on this network."""
    if ":" not in address:
        return address
    return embedded(address, network.ipv6_subnet) if network.ipv6_subnet else ""
