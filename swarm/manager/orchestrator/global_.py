"""Global services: one task on every node that may have one.

Invariant: no node has two tasks of the service that are meant to run; a node that is paused or silent keeps
what it has and gets nothing new.
Source: SwarmKit manager/orchestrator/global/global.go.
"""

from __future__ import annotations

from swarm.manager.orchestrator.replace import Work, plan_slot
from swarm.manager.orchestrator.slots import Slot, lower, slots_by_node
from swarm.model.objects import Node, Service
from swarm.model.plan import Plan, join
from swarm.model.task_state import TaskState
from swarm.model.types import Availability, NodeState
from swarm.scheduler.constraint import satisfies
from swarm.scheduler.filters import placement_of
from swarm.scheduler.platform import runs_on


def plan_global(work: Work) -> Plan:
    """Create, replace, start or shut down tasks until every eligible node has one."""
    slots = slots_by_node(work.view, work.view.tasks_of_service(work.service.id))
    nodes = {node.id: node for node in work.view.list(Node)}
    plans = [_plan_node(work, slots.get(node.id, Slot(node_id=node.id)), node) for node in nodes.values()]
    gone = [slot for node_id, slot in slots.items() if node_id not in nodes]
    plans += [Plan.of(lower(slot.tasks, TaskState.REMOVE)) for slot in gone]
    return join(plans)


def _plan_node(work: Work, slot: Slot, node: Node) -> Plan:
    if not is_wanted(work.service, node):
        return Plan.of(lower(slot.tasks, TaskState.SHUTDOWN))
    if is_open(node) or slot.keeper is not None:
        return plan_slot(work, slot)
    return Plan.of(lower(slot.tasks, TaskState.SHUTDOWN))


def is_open(node: Node) -> bool:
    """The node can take a task just now."""
    return node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE


def is_wanted(service: Service, node: Node) -> bool:
    """The service is meant for the node, whether or not the node can take a task just now."""
    if node.spec.availability is Availability.DRAIN or node.status.state is NodeState.DOWN:
        return False
    placement = placement_of(service.spec.task_template)
    return satisfies(placement.constraints, node) and runs_on(placement.platforms, node.description.platform)
