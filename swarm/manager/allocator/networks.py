"""Which subnets, and which VXLAN identifier, a network gets; and when a removed one goes. Pure.

Invariant: no two networks share a subnet or a VXLAN identifier, and none gets what a node has routes to.
What a user asked for is given as asked, or not at all: then the network says why.
Source: SwarmKit manager/allocator/network.go, libnetwork's ovmanager.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network, ip_network

from swarm.manager.allocator.ipam import choose_subnet, spell_out
from swarm.model.defaults import FIRST_VNI
from swarm.model.embedded import default_ipv6_subnet
from swarm.model.networks import OVERLAY, vni_of
from swarm.model.objects import Cluster, Network, Node, Service, Task
from swarm.model.plan import Delete, Op, Update
from swarm.model.specs import NetworkSpec
from swarm.model.task_state import TaskState
from swarm.model.types import IPAMConfig
from swarm.model.view import ClusterView

VNIS = range(FIRST_VNI, 1 << 24)


def allocate_networks(view: ClusterView) -> tuple[dict[str, Network], list[Op]]:
    """All networks by id, as they will be, and the writes that make them so."""
    ops: list[Op] = []
    networks: dict[str, Network] = {}
    used = {task_network for task in view.list(Task) for task_network in _held_by(task)}
    for network in view.list(Network):
        if network.is_removed and network.id not in used and not users_of(view, network.id):
            ops.append(Delete(object=network))
            continue
        networks[network.id] = network
        if not network.is_removed and not _is_allocated(network):
            changed = _allocate(view, network, networks)
            networks[network.id] = changed
            if changed != network:
                ops.append(Update(object=changed))
    return networks, ops


def held(task: Task) -> bool:
    """Whether the task keeps its addresses: until it is dead and nobody wants it."""
    return min(task.status.state, task.desired_state) <= TaskState.RUNNING


def _held_by(task: Task) -> Iterator[str]:
    if held(task):
        yield from (attachment.network_id for attachment in task.attachments)


def _is_allocated(network: Network) -> bool:
    return network.spec.driver != OVERLAY or bool(network.ipam and network.vni)


def _allocate(view: ClusterView, network: Network, before: dict[str, Network]) -> Network:
    others = [other for other in view.list(Network) if other.id != network.id]
    others = [before.get(other.id, other) for other in others]
    configs, err = _subnets(view, network, others)
    err = err or ("" if network.vni else find_same_number(network.spec, [o for o in others if o.vni]))
    if err or not configs:
        return replace(network, err=err)
    taken = {other.vni for other in others} | {vni_of(other.spec) for other in others}
    vni = network.vni or vni_of(network.spec)
    vni = vni or next(number for number in VNIS if number not in taken)
    ipv6, err = _ipv6_subnet(view, network, vni, others)
    return replace(network, err=err) if err else replace(network, ipam=configs + ipv6, vni=vni, err="")


def _subnets(
    view: ClusterView, network: Network, others: Iterable[Network]
) -> tuple[tuple[IPAMConfig, ...], str]:
    """The IPv4 subnets of the network, or none and the reason."""
    wanted = [config for config in network.spec.ipam if config.subnet and not config.is_ipv6]
    held_by_others = [other for other in others if other.ipam]
    if wanted:
        conflict = find_overlap(replace(network.spec, ipam=tuple(wanted)), held_by_others, ())
        return ((), conflict) if conflict else (tuple(map(spell_out, wanted)), "")
    cluster = next(iter(view.list(Cluster)), None)
    if cluster is None:
        return (), "the swarm's address pools are not known yet"
    if view.list(Node) and not any(node.description.hostname for node in view.list(Node)):
        return (), ""  # the founder's session is about to open, and tells its routes
    pools = [IPv4Network(pool) for pool in cluster.default_address_pools]
    asked_for = [IPv4Network(text) for other in others for text in _asked_for(other.spec) if ":" not in text]
    taken = [IPv4Network(subnet) for other in held_by_others for subnet in other.subnets]
    routes = [IPv4Network(subnet) for node in view.list(Node) for subnet in node.description.subnets]
    # A route to all of a pool (10.0.0.0/8, say) is no reason against it: the pool was given to the swarm.
    taken += [route for route in routes if not any(pool.subnet_of(route) for pool in pools)]
    found = choose_subnet(pools, cluster.subnet_size, [*taken, *asked_for])
    if found is None:
        shown = ", ".join(map(str, pools))
        return (
            (),
            f"no /{cluster.subnet_size} is free in the address pools ({shown}): create it with --subnet",
        )
    return (spell_out(IPAMConfig(subnet=found)),), ""


def _ipv6_subnet(
    view: ClusterView, network: Network, vni: int, others: Iterable[Network]
) -> tuple[tuple[IPAMConfig, ...], str]:
    """Its IPv6 subnet if it is to have one, or the reason why it cannot have it."""
    spec = network.spec
    if not spec.enable_ipv6:
        return (), ""
    asked_for = next((config for config in spec.ipam if config.is_ipv6), None)
    cluster = next(iter(view.list(Cluster)), None)
    config = asked_for or IPAMConfig(subnet=default_ipv6_subnet(cluster.id if cluster else "", vni))
    conflict = find_overlap(replace(spec, ipam=(config,)), [other for other in others if other.ipam], ())
    return ((), conflict) if conflict else ((spell_out(config),), "")


def find_same_number(spec: NetworkSpec, others: Iterable[Network]) -> str:
    """Why the VXLAN identifier that the user wants cannot be had; empty if it can."""
    wanted = vni_of(spec)
    for other in others:
        if wanted and wanted in (other.vni, vni_of(other.spec)):
            return f"VXLAN network identifier {wanted} is already in use by network {other.spec.name}"
    return ""


def find_overlap(spec: NetworkSpec, others: Iterable[Network], nodes: Iterable[Node]) -> str:
    """Why the subnets that the user wants cannot be had; empty if they can."""
    for subnet in map(ip_network, _asked_for(spec)):
        for other in others:
            for theirs in tuple(config.subnet for config in other.ipam) or _asked_for(other.spec):
                if subnet.overlaps(ip_network(theirs)):
                    name = f"network {other.spec.name} has {theirs}"
                    return f"Pool overlaps with other one on this address space: {subnet}: {name}"
        for node in nodes:
            for theirs in node.description.subnets:
                if subnet.overlaps(ip_network(theirs)):
                    name = f"node {node.description.hostname or node.id} has a route to {theirs}"
                    return f"Pool overlaps with other one on this address space: {subnet}: {name}"
    return ""


def _asked_for(spec: NetworkSpec) -> tuple[str, ...]:
    return tuple(config.subnet for config in spec.ipam if config.subnet)


def users_of(view: ClusterView, network_id: str) -> list[Service]:
    """The services whose specs name the network."""
    return [
        service
        for service in view.list(Service)
        if any(wanted.target == network_id for wanted in service.spec.task_template.networks)
    ]
