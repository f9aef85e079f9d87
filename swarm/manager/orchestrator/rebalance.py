"""Evens a replicated service out over the nodes that may run it, say after a node has come back.

The view and a service in; tasks marked to leave their nodes out. What is marked is replaced as by a drain, in
the service's update order; the scheduler then takes the node with the fewest tasks of the service.
Invariant: a task is moved only while two nodes differ by two tasks or more, so no move is ever undone by the
next; nothing is moved while the service is not at rest (a task not running yet, an update under way).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from swarm.base.errors import FailedPrecondition
from swarm.base.ids import NodeID
from swarm.manager.orchestrator.rollout import UNDER_WAY
from swarm.manager.orchestrator.slots import age
from swarm.model.objects import Node, Service, Task
from swarm.model.options import Strategy, service_options
from swarm.model.plan import Plan, Update
from swarm.model.task_state import TaskState, is_dead
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import FAILURES_TO_AVOID, NodeInfo
from swarm.scheduler.filters import Requirements, first_refusal, placement_of


def plan_rebalance(view: ClusterView, service: Service, now: datetime) -> Plan:
    """As many moves as the service's own budget (`swarm.rebalance`) still allows."""
    budget = service_options(service.spec.labels).rebalance
    if not budget or service.spec.mode.replicated is None or not is_movable(service):
        return Plan()
    return Plan.of(_moves(view, service, budget, now))


def all_moves(view: ClusterView, service: Service, now: datetime) -> Plan:
    """Everything that evens the service out now, for a user who asks for it.

    Raises: FailedPrecondition for a service that cannot be evened out.
    """
    if service.spec.mode.replicated is None:
        raise FailedPrecondition("only a replicated service can be rebalanced")
    obstacle = _obstacle(service)
    if obstacle:
        raise FailedPrecondition(f"service {service.spec.name} cannot be rebalanced: it {obstacle}")
    return Plan.of(_moves(view, service, len(view.tasks_of_service(service.id)), now))


def is_movable(service: Service) -> bool:
    """Even by count is what the scheduler makes of it too."""
    return not _obstacle(service)


def _obstacle(service: Service) -> str:
    """Why tasks cannot be moved now, as the end of a sentence about the service; empty if they can."""
    if placement_of(service.spec.task_template).preferences:
        return "has placement preferences, which say what even means"
    if service_options(service.spec.labels).strategy is not Strategy.SPREAD:
        return "packs its tasks (--placement-strategy binpack)"
    status = service.update_status
    if status is not None and status.state in UNDER_WAY:
        return "is being updated: wait for the end of that"
    return ""


def _moves(view: ClusterView, service: Service, budget: int, now: datetime) -> Iterator[Update]:
    tasks = [
        task
        for task in view.tasks_of_service(service.id)
        if task.desired_state <= TaskState.RUNNING and not is_dead(task.status.state)
    ]
    if not tasks or any(t.status.state is not TaskState.RUNNING or t.leaving for t in tasks):
        return
    placed: dict[NodeID, list[Task]] = {}
    for task in sorted(tasks, key=age):
        placed.setdefault(task.node_id, []).append(task)
    takers = [placed.setdefault(node_id, []) for node_id in _takers(view, tasks[0], now)]
    for _ in range(budget):
        crowded = max(placed.values(), key=len, default=[])
        empty = min(takers, key=len, default=crowded)
        if len(crowded) - len(empty) < 2:
            return
        moved = crowded.pop()
        empty.append(moved)
        yield Update(object=replace(moved, leaving=True))


def _takers(view: ClusterView, task: Task, now: datetime) -> Iterator[NodeID]:
    """Nodes that could take one more task like this one."""
    wanted = Requirements.of(task)
    for node in view.list(Node):
        info = NodeInfo(node=node)
        for other in view.tasks_on_node(node.id):
            info.count(other, 1)
        has_room = first_refusal(wanted, info) is None
        if has_room and info.recent_failures(wanted.release, now) < FAILURES_TO_AVOID:
            yield node.id
