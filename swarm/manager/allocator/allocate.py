"""The allocator: networks, hosts and new tasks in; subnets, addresses and NEW -> PENDING out.

Invariant: an address belongs to one task or host at a time. A task has its address for as long as its
container may live: until it is dead and nobody wants it, or its record is gone.
Tasks that no network can serve stay NEW and say why.
Source: SwarmKit manager/allocator/network.go (which tells only the manager's log why).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from swarm.manager.allocator.ipam import AddressPool, gateway_of, number_of
from swarm.model.defaults import FIRST_VNI, INGRESS_SUBNET
from swarm.model.objects import Network, Node, StoredObject, Task, TaskStatus
from swarm.model.plan import Op, Plan, Update
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import NetworkAttachment, PublishMode
from swarm.model.view import ClusterView

PENDING = "pending task scheduling"
NO_INGRESS = "network ingress not found"
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def plan_allocation(view: ClusterView, now: datetime) -> Plan:
    """Give the ingress network its subnet, every host its address there, and every new task what it needs."""
    ops: list[Op] = []
    ingress = find_ingress(view)
    if ingress is not None and not (ingress.subnet and ingress.gateway and ingress.vni):
        ingress = _allocate_network(view, ingress)
        ops.append(Update(object=ingress))
    pool = _pool(view, ingress) if ingress is not None else None
    if ingress is not None and pool is not None:
        ops += _allocate_nodes(view, ingress, pool)
    for task in view.list(Task):
        if task.status.state is TaskState.NEW and task.desired_state <= TaskState.RUNNING:
            ops += _allocate_task(task, ingress, pool, now)
    return Plan.of(ops)


def concerns_allocation(_: StoredObject | None, new: StoredObject | None) -> bool:
    """Of tasks, those that wait for an address and those that may give one back."""
    if not isinstance(new, Task):
        return True
    return new.status.state is TaskState.NEW or is_dead(new.status.state)


def find_ingress(view: ClusterView) -> Network | None:
    return next((network for network in view.list(Network) if network.spec.ingress), None)


def _allocate_network(view: ClusterView, network: Network) -> Network:
    subnet = network.subnet or network.spec.subnet or INGRESS_SUBNET
    used = {other.vni for other in view.list(Network)}
    vni = network.vni or next(number for number in range(FIRST_VNI, 1 << 24) if number not in used)
    return replace(network, subnet=subnet, gateway=gateway_of(subnet), vni=vni)


def _pool(view: ClusterView, network: Network) -> AddressPool:
    used = {number_of(network.gateway)}
    newest, last = LONG_AGO, 0
    for holder, attachment in _holders(view, network):
        created = holder.meta.created_at or LONG_AGO
        for address in attachment.addresses:
            number = number_of(address)
            if _holds_on(holder):
                used.add(number)
            newest, last = max((newest, last), (created, number))
    return AddressPool(network.subnet, used=used, last=last)


def _holders(view: ClusterView, network: Network) -> Iterator[tuple[Task | Node, NetworkAttachment]]:
    holders: list[Task | Node] = [*view.list(Node), *view.list(Task)]
    for holder in holders:
        for attachment in holder.attachments:
            if attachment.network_id == network.id:
                yield holder, attachment


def _holds_on(holder: Task | Node) -> bool:
    return isinstance(holder, Node) or min(holder.status.state, holder.desired_state) <= TaskState.RUNNING


def _allocate_nodes(view: ClusterView, network: Network, pool: AddressPool) -> Iterator[Op]:
    for node in view.list(Node):
        if any(attachment.network_id == network.id for attachment in node.attachments):
            continue
        address = pool.take()
        if address is not None:
            attachment = NetworkAttachment(network_id=network.id, addresses=(address,))
            yield Update(object=replace(node, attachments=(*node.attachments, attachment)))


def _allocate_task(
    task: Task, network: Network | None, pool: AddressPool | None, now: datetime
) -> Iterator[Op]:
    pending = TaskStatus(timestamp=now, state=TaskState.PENDING, message=PENDING)
    if not any(port.publish_mode is PublishMode.INGRESS for port in task.endpoint.ports):
        yield Update(object=replace(task, status=pending))
        return
    if network is None or pool is None:
        yield from _explain(task, NO_INGRESS, now)
        return
    address = pool.take()
    if address is None:
        name = network.spec.name
        yield from _explain(task, f"could not find an available IP on network {name} ({network.subnet})", now)
        return
    attachment = NetworkAttachment(network_id=network.id, addresses=(address,))
    yield Update(object=replace(task, status=pending, attachments=(attachment,)))


def _explain(task: Task, reason: str, now: datetime) -> Iterator[Op]:
    if task.status.err != reason:
        status = replace(task.status, timestamp=now, err=reason)
        yield Update(object=replace(task, status=status))
