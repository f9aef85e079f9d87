"""Global services: one task on every node that may have one.

Invariant: no node has two tasks of the service that are meant to run; a node that is paused or silent keeps
what it has and gets nothing new.
Source: SwarmKit manager/orchestrator/global/global.go.
"""

from __future__ import annotations

from dataclasses import replace

from swarm.manager.orchestrator.dirty import outdated_by
from swarm.manager.orchestrator.replace import Work, plan_slot
from swarm.manager.orchestrator.rollout import plan_rollout
from swarm.manager.orchestrator.slots import Slot, is_open, lower, slots_by_node
from swarm.model.constraint import satisfies
from swarm.model.objects import Node, Service
from swarm.model.plan import Plan, join
from swarm.model.platform import runs_on
from swarm.model.task_state import TaskState
from swarm.model.types import Availability, NodeState
from swarm.scheduler.filters import placement_of


def plan_global(work: Work) -> Plan:
    """Create, replace, start or shut down tasks until every eligible node has one."""
    is_outdated = outdated_by(work.view, work.service)
    slots = slots_by_node(work.view, work.view.tasks_of_service(work.service.id), is_outdated)
    nodes = {node.id: node for node in work.view.list(Node)}
    wanted = {node.id for node in nodes.values() if is_wanted(work.service, node)}
    kept = [slots.get(node_id, Slot(node_id=node_id)) for node_id in nodes if node_id in wanted]
    rollout = plan_rollout(work.view, work.service, kept, is_outdated, work.now)
    if rollout.is_turned:
        return rollout.plan
    work = replace(work, rollout=rollout)
    plans = [rollout.plan, *(_plan_node(work, slot, nodes[slot.node_id]) for slot in kept)]
    for node_id, slot in slots.items():
        if node_id not in wanted:
            desired = TaskState.SHUTDOWN if node_id in nodes else TaskState.REMOVE
            plans.append(Plan.of(lower(slot.tasks, desired)))
    return join(plans)


def _plan_node(work: Work, slot: Slot, node: Node) -> Plan:
    if is_open(node) or slot.holder is not None:
        return plan_slot(work, slot)
    return Plan.of(lower(slot.tasks, TaskState.SHUTDOWN))


def is_wanted(service: Service, node: Node) -> bool:
    """The service is meant for the node, whether or not the node can take a task just now."""
    if node.spec.availability is Availability.DRAIN or node.status.state is NodeState.DOWN:
        return False
    placement = placement_of(service.spec.task_template)
    return satisfies(placement.constraints, node) and runs_on(placement.platforms, node.description.platform)
