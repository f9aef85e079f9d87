"""Who has which address: the cluster in, one pool of free addresses for each network out. Pure.

Invariant: a task has its address for as long as its container may live; a service has its virtual address for
as long as it is on the network; a host has one only where its own traffic enters (ingress).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from swarm.manager.allocator.ipam import AddressPool, number_of, reserved
from swarm.manager.allocator.networks import held
from swarm.model.objects import Network, Node, Service, Task
from swarm.model.view import ClusterView

LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Holding:
    network_id: str
    number: int
    since: datetime
    is_held: bool
    """False when it was given back: it is the last to be given again."""


def holdings(view: ClusterView) -> Iterator[Holding]:
    for node in view.list(Node):
        since = node.meta.created_at or LONG_AGO
        for attachment in node.attachments:
            for address in attachment.addresses[:1]:
                yield Holding(attachment.network_id, number_of(address), since, is_held=True)
    for service in view.list(Service):
        since = service.meta.created_at or LONG_AGO
        for virtual in (found for found in service.endpoint.virtual_ips if not found.is_ipv6):
            yield Holding(virtual.network_id, number_of(virtual.addr), since, is_held=True)
    for task in view.list(Task):
        since, is_held = task.meta.created_at or LONG_AGO, held(task)
        for attachment in task.attachments:
            for address in attachment.addresses[:1]:  # that of IPv6 follows from it
                yield Holding(attachment.network_id, number_of(address), since, is_held)


def pools_of(view: ClusterView, networks: Mapping[str, Network]) -> dict[str, AddressPool]:
    """Of every network that has its subnets, by its id."""
    used = {key: reserved(network.ipam) for key, network in networks.items() if network.ipam}
    last = dict.fromkeys(used, (LONG_AGO, 0))
    for holding in holdings(view):
        if holding.network_id in used:
            if holding.is_held:
                used[holding.network_id].add(holding.number)
            mark = (holding.since, holding.number)
            last[holding.network_id] = max(last[holding.network_id], mark)
    return {
        key: AddressPool(networks[key].ipam, used=numbers, last=last[key][1]) for key, numbers in used.items()
    }


@dataclass(frozen=True, slots=True)
class AddressUse:
    used: int
    size: int


def address_use(view: ClusterView) -> dict[str, AddressUse]:
    """How full each network is, by its id; what is reserved counts as used."""
    networks = {str(network.id): network for network in view.list(Network) if network.ipam}
    used = {key: reserved(network.ipam) for key, network in networks.items()}
    for holding in holdings(view):
        if holding.is_held and holding.network_id in used:
            used[holding.network_id].add(holding.number)
    return {
        key: AddressUse(len(numbers), AddressPool(networks[key].ipam, used=set(), last=0).size)
        for key, numbers in used.items()
    }
