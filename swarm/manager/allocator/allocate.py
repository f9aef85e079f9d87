"""The allocator: networks, hosts, services and new tasks in; subnets, addresses and NEW -> PENDING out.

Invariant: an address belongs to one task, service or host at a time. A task that no network can serve stays
NEW and says why. Hosts spend an address on the ingress network only.
Source: SwarmKit manager/allocator/network.go (which tells only the manager's log why).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from swarm.manager.allocator.addresses import pools_of
from swarm.manager.allocator.ipam import AddressPool
from swarm.manager.allocator.networks import allocate_networks
from swarm.model.embedded import embed
from swarm.model.networks import PREDEFINED
from swarm.model.objects import Network, Node, Service, StoredObject, Task, TaskStatus
from swarm.model.plan import Op, Plan, Update
from swarm.model.specs import ServiceSpec
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import NetworkAttachment, PublishMode, VirtualIP
from swarm.model.view import ClusterView

PENDING = "pending task scheduling"
NO_INGRESS = "network ingress not found"


@dataclass(frozen=True, slots=True)
class _Space:
    """The networks as they will be, and their free addresses."""

    networks: Mapping[str, Network]
    pools: Mapping[str, AddressPool]

    @property
    def ingress(self) -> Network | None:
        found = (n for n in self.networks.values() if n.spec.ingress and not n.is_removed)
        return next(found, None)

    def attach(self, network: Network) -> NetworkAttachment | str:
        """An attachment with an address of its own, or the reason why there is none."""
        if network.id not in self.pools:
            return _nodes_own(network) if _is_nodes_own(network) else _why_not(network)
        address = self.pools[network.id].take()
        if address is None:
            subnets = ", ".join(network.subnets)
            return f"could not find an available IP on network {network.spec.name} ({subnets})"
        return NetworkAttachment(
            network_id=network.id,
            addresses=_with_ipv6(address, network),
            subnets=network.subnets if len(network.subnets) > 1 else (),
            internal=network.spec.internal,
        )

    def give_back(self, attachments: Iterable[NetworkAttachment]) -> None:
        for attachment in attachments:
            for address in attachment.addresses[:1]:
                self.pools[attachment.network_id].give_back(address)


def plan_allocation(view: ClusterView, now: datetime) -> Plan:
    """Give networks their subnets, hosts and services their addresses, and every new task what it needs."""
    networks, ops = allocate_networks(view)
    space = _Space(networks, pools_of(view, networks))
    ops += _allocate_nodes(view, space)
    for service in view.list(Service):
        ops += _allocate_service(service, space)
    for task in view.list(Task):
        if task.status.state is TaskState.NEW and task.desired_state <= TaskState.RUNNING:
            ops += _allocate_task(task, space, now)
    return Plan.of(ops)


def concerns_allocation(old: StoredObject | None, new: StoredObject | None) -> bool:
    """Of tasks, those that wait for an address and those that may give one back."""
    if isinstance(new, Service):
        return not isinstance(old, Service) or (old.spec, old.endpoint) != (new.spec, new.endpoint)
    if not isinstance(new, Task):
        return True
    return new.status.state is TaskState.NEW or is_dead(new.status.state)


def _is_nodes_own(network: Network) -> bool:
    """Its nodes give the addresses, if any: the predefined networks, and those of nodes' settings."""
    return network.id in PREDEFINED or bool(network.spec.config_from)


def _nodes_own(network: Network) -> NetworkAttachment:
    spec = network.spec
    return NetworkAttachment(network_id=network.id, internal=spec.internal, config_from=spec.config_from)


def _why_not(network: Network) -> str:
    return network.err or f"network {network.spec.name} has no subnet yet"


def _allocate_nodes(view: ClusterView, space: _Space) -> Iterator[Op]:
    """Every host its leg into the ingress network; legs into one that is gone are taken back."""
    ingress = space.ingress
    for node in view.list(Node):
        attachments = tuple(a for a in node.attachments if ingress and a.network_id == ingress.id)
        if ingress is not None and ingress.ipam and not attachments:
            address = space.pools[ingress.id].take()
            if address is not None:
                attachments = (NetworkAttachment(network_id=ingress.id, addresses=(address,)),)
        if attachments != node.attachments:
            yield Update(object=replace(node, attachments=attachments))


def _allocate_service(service: Service, space: _Space) -> Iterator[Op]:
    """A virtual address on each of its overlays, unless its name is to stand for the tasks themselves."""
    wanted = _virtual_networks(service.spec, space)
    kept = [virtual for virtual in service.endpoint.virtual_ips if virtual.network_id in wanted]
    missing = [network_id for network_id in wanted if network_id not in {v.network_id for v in kept}]
    added = [
        VirtualIP(network_id=network_id, addr=address)
        for network_id in missing
        if (taken := space.pools[network_id].take()) is not None
        for address in _with_ipv6(taken, space.networks[network_id])
    ]
    if (*kept, *added) != service.endpoint.virtual_ips:
        endpoint = replace(service.endpoint, virtual_ips=(*kept, *added))
        yield Update(object=replace(service, endpoint=endpoint))


def _with_ipv6(address: str, network: Network) -> tuple[str, ...]:
    """An address of the network (CIDR), with the IPv6 address that goes with it, if it has any."""
    if not network.ipv6_subnet:
        return (address,)
    own, prefix = address.partition("/")[0], network.ipv6_subnet.partition("/")[2]
    return address, f"{embed(own, network.ipv6_subnet)}/{prefix}"


def _virtual_networks(spec: ServiceSpec, space: _Space) -> list[str]:
    if spec.endpoint_spec is not None and spec.endpoint_spec.mode == "dnsrr":
        return []
    return [w.target for w in spec.task_template.networks if w.target in space.pools]


def _allocate_task(task: Task, space: _Space, now: datetime) -> Iterator[Op]:
    attachments: list[NetworkAttachment] = []
    for network in _networks_of(task, space):
        found = space.attach(network) if isinstance(network, Network) else network
        if isinstance(found, str):
            space.give_back(attachments)
            yield from _explain(task, found, now)
            return
        attachments.append(found)
    pending = TaskStatus(timestamp=now, state=TaskState.PENDING, message=PENDING)
    yield Update(object=replace(task, status=pending, attachments=tuple(attachments)))


def _networks_of(task: Task, space: _Space) -> Iterator[Network | str]:
    """Its own networks in the order asked for, then ingress; a text where one is missing."""
    for wanted in task.spec.networks:
        network = PREDEFINED.get(wanted.target) or space.networks.get(wanted.target)
        yield network or f"network {wanted.target} not found"
    if any(port.publish_mode is PublishMode.INGRESS for port in task.endpoint.ports):
        yield space.ingress or NO_INGRESS


def _explain(task: Task, reason: str, now: datetime) -> Iterator[Op]:
    if task.status.err != reason:
        status = replace(task.status, timestamp=now, err=reason)
        yield Update(object=replace(task, status=status))
