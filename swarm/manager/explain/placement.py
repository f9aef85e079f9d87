"""Why each node does not take a task: the scheduler's own filters, in words and with numbers. Pure."""

from __future__ import annotations

from swarm.model.constraint import satisfies
from swarm.model.objects import Node, Task
from swarm.model.types import Availability, NodeState
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import Accounting, NodeInfo, host_ports_of
from swarm.scheduler.filters import (
    Requirements,
    has_platform,
    has_ports,
    has_resources,
    is_below_max_replicas,
    is_ready,
    meets_constraints,
)

GIB = 1 << 30
MIB = 1 << 20


def refusals(view: ClusterView, task: Task, accounting: Accounting) -> dict[str, str]:
    """Hostname -> why not; nodes that would take the task are left out."""
    wanted = Requirements.of(task)
    nodes = [accounting.get(task.node_id)] if task.node_id else accounting.list()
    found: dict[str, str] = {}
    for info in nodes:
        if info is not None and info.node is not None and (reason := _refusal(view, wanted, info, info.node)):
            found[info.node.description.hostname or info.node.id] = reason
    return found


def _refusal(view: ClusterView, wanted: Requirements, info: NodeInfo, node: Node) -> str:
    """In the order of the scheduler's filters: the first that says no is told."""
    if not is_ready(wanted, info):
        return why_not_ready(node)
    if not has_resources(wanted, info):
        return _shortage(wanted, info, node)
    if not meets_constraints(wanted, info):
        unmet = [text for text in wanted.placement.constraints if not satisfies((text,), node)]
        return f"does not meet the constraint {' and '.join(unmet)}"
    if not has_platform(wanted, info):
        platform = node.description.platform
        return f"the image is not for its platform, {platform.os}/{platform.architecture}"
    if not has_ports(wanted, info):
        return _port_holders(view, wanted, node)
    if not is_below_max_replicas(wanted, info):
        return (
            f"has {wanted.placement.max_replicas} of the service's tasks already, as many as a node may have"
        )
    return ""


def why_not_ready(node: Node) -> str:
    if node.status.state is not NodeState.READY:
        return f"is {node.status.state}" + (f" ({node.status.message})" if node.status.message else "")
    words = {Availability.DRAIN: "is drained", Availability.PAUSE: "is paused"}
    return words.get(node.spec.availability, "is not available")


def _shortage(wanted: Requirements, info: NodeInfo, node: Node) -> str:
    total = node.description.resources
    lacks = []
    free_cpus = total.nano_cpus - info.reserved_nano_cpus
    if wanted.nano_cpus > free_cpus:
        lacks.append(f"{_cpus(wanted.nano_cpus)} CPUs are asked for, {_cpus(free_cpus)} free")
    free_memory = total.memory_bytes - info.reserved_memory_bytes
    if wanted.memory_bytes > free_memory:
        lacks.append(f"{_bytes(wanted.memory_bytes)} of memory asked for, {_bytes(free_memory)} free")
    if not lacks:
        kinds = ", ".join(f"{number} {kind}" for kind, number in wanted.generic.items())
        lacks.append(f"has not enough left of {kinds}")
    return "; ".join(lacks)


def _port_holders(view: ClusterView, wanted: Requirements, node: Node) -> str:
    holders = sorted(
        f"port {number}/{protocol} is taken by {other.service_name}.{other.slot or other.node_id}"
        for other in view.tasks_on_node(node.id)
        for protocol, number in host_ports_of(other) & wanted.host_ports
        if not other.status.state > other.status.state.RUNNING
    )
    return "; ".join(holders) or "a port is taken"


def _cpus(nano: int) -> str:
    return f"{max(nano, 0) / 1e9:g}"


def _bytes(number: int) -> str:
    number = max(number, 0)
    return f"{number / GIB:.3g} GiB" if number >= GIB else f"{number / MIB:.3g} MiB"
