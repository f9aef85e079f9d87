"""The enforcer: which tasks a node can no longer have, since its labels, role or resources have changed.

One node's id and the view in; tasks marked `leaving` out, which the orchestrator then replaces in the
service's update order.
Invariant: where a node has less than its tasks reserve, the newest go until the rest fits; the same ones
whoever decides. A drained node is the orchestrator's own business, and a paused one keeps what it has.
Source: SwarmKit manager/orchestrator/constraintenforcer/constraint_enforcer.go, which picks at random.
"""

from __future__ import annotations

from dataclasses import replace

from swarm.base.ids import NodeID
from swarm.manager.orchestrator.slots import age, is_open
from swarm.model.constraint import satisfies
from swarm.model.generic_resources import claims_of
from swarm.model.objects import Node, Service, Task
from swarm.model.plan import Plan, Update
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import NodeInfo
from swarm.scheduler.filters import placement_of


def plan_enforcement(view: ClusterView, node_id: NodeID) -> Plan:
    """Mark the node's tasks that are to go elsewhere."""
    node = view.get(Node, node_id)
    if node is None or not is_open(node):
        return Plan()
    info = NodeInfo(node=node)
    ops = []
    for task in sorted(view.tasks_on_node(node_id), key=age):
        if not TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
            continue
        if task.desired_state > TaskState.RUNNING or task.leaving:
            continue
        info.count(task, 1)
        if _violates(view, node, task) or not _fits(info):
            info.count(task, -1)
            ops.append(Update(object=replace(task, leaving=True)))
    return Plan.of(ops)


def _violates(view: ClusterView, node: Node, task: Task) -> bool:
    """Neither the service's constraints nor those that the task was made with hold.

    A task may be older than the constraints: whether it has to go then is the update's question.
    """
    service = view.get(Service, task.service_id)
    if service is None or service.spec.mode.global_ or service.spec.mode.global_job:
        return False  # where a global service's tasks may be is decided by the node each time
    return not any(
        satisfies(placement_of(spec).constraints, node) for spec in (service.spec.task_template, task.spec)
    )


def _fits(info: NodeInfo) -> bool:
    assert info.node is not None
    has = info.node.description.resources
    return (
        info.reserved_nano_cpus <= has.nano_cpus
        and info.reserved_memory_bytes <= has.memory_bytes
        and not info.claimed - claims_of(has.generic_resources)
    )
