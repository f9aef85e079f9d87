"""A service's tasks by slot, one per replica (for a global service one per node): what stands, what stood.

Invariant: a slot has at most one keeper, the task that is meant to run there, and at most one outgoing task,
which runs until the keeper can take its place; everything else in it is history or on its way out. All orders
come from the manager's `created_at`, never from a host's clock.
Source: SwarmKit manager/orchestrator/slot.go, task.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from swarm.base.ids import IdSource, NodeID, TaskID
from swarm.model.exclusive import is_exclusive
from swarm.model.objects import NO_NODE, Node, Service, Task, TaskStatus
from swarm.model.payload_versions import with_versions
from swarm.model.plan import Create, Update
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import Availability, Meta, NodeState
from swarm.model.view import ClusterView

CREATED = "created"
LONG_AGO = datetime.min.replace(tzinfo=UTC)
SlotKey = tuple[int, NodeID]
Judge = Callable[[Task], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    number: int = 0
    node_id: NodeID = NO_NODE
    """Set for a global service, whose slots are its nodes."""
    tasks: tuple[Task, ...] = ()
    """Oldest first, without those that are only to be removed."""
    leaving: tuple[Task, ...] = ()
    """Desired REMOVE: of an earlier life of this slot, perhaps still running."""
    keeper: Task | None = None
    outgoing: Task | None = None
    """To be replaced: of an older template, or on a node that it has to leave."""

    @property
    def key(self) -> SlotKey:
        return self.number, self.node_id

    @property
    def holder(self) -> Task | None:
        """Who does the slot's work just now."""
        return self.outgoing or self.keeper


def age(task: Task) -> tuple[datetime, str]:
    """Sorts tasks, oldest first."""
    return task.meta.created_at or LONG_AGO, task.id


def is_abandoned(view: ClusterView, task: Task) -> bool:
    """Its node is down or deleted: nobody answers for the task and nobody will stop it."""
    if not task.node_id:
        return False
    node = view.get(Node, task.node_id)
    return node is None or node.status.state is NodeState.DOWN


def must_leave(view: ClusterView, task: Task) -> bool:
    """Its node can no longer have it. A silent node (UNKNOWN, DISCONNECTED) may be fine: leave it alone."""
    if task.leaving or is_abandoned(view, task):
        return True
    node = view.get(Node, task.node_id) if task.node_id else None
    return node is not None and node.spec.availability is Availability.DRAIN


def may_still_run(view: ClusterView, task: Task) -> bool:
    """A host that we can reach, or that may come back any moment, may have the task's container.

    An exclusive service's task may, until its record says that it has ended (`swarm.manager.fencing`).
    """
    if not TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
        return False
    return is_exclusive(task) or not is_abandoned(view, task)


def is_open(node: Node) -> bool:
    """The node can take a task just now."""
    return node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE


def slots_by_number(
    view: ClusterView, tasks: Iterable[Task], is_outdated: Judge | None = None
) -> dict[int, Slot]:
    """Without `is_outdated` no task is outgoing: what cannot stay is only unfit."""
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.slot, []).append(task)
    return {n: _slot(view, group, is_outdated, number=n) for n, group in groups.items()}


def slots_by_node(
    view: ClusterView, tasks: Iterable[Task], is_outdated: Judge | None = None
) -> dict[NodeID, Slot]:
    groups: dict[NodeID, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.node_id, []).append(task)
    return {n: _slot(view, group, is_outdated, node_id=n) for n, group in groups.items()}


def _slot(
    view: ClusterView,
    tasks: list[Task],
    is_outdated: Judge | None,
    *,
    number: int = 0,
    node_id: NodeID = NO_NODE,
) -> Slot:
    tasks.sort(key=age)
    standing = tuple(task for task in tasks if task.desired_state < TaskState.REMOVE)
    fit: list[Task] = []
    outgoing: list[Task] = []
    for task in standing:
        if task.desired_state > TaskState.RUNNING or is_dead(task.status.state):
            continue
        if not must_leave(view, task) and not (is_outdated and is_outdated(task)):
            fit.append(task)
        elif is_outdated and not is_abandoned(view, task):
            outgoing.append(task)
    return Slot(
        number=number,
        node_id=node_id,
        tasks=standing,
        leaving=tuple(task for task in tasks if task.desired_state >= TaskState.REMOVE),
        keeper=max(fit, key=lambda task: task.status.state, default=None),
        outgoing=max(outgoing, key=lambda task: task.status.state, default=None),
    )


def create_task(
    view: ClusterView, service: Service, slot: Slot, desired: TaskState, now: datetime, new_id: IdSource
) -> Create:
    """A new task for `slot`, as the service's template has it now."""
    task = Task(
        id=TaskID(new_id()),
        meta=Meta(created_at=now, updated_at=now),
        spec=with_versions(view, service.spec.task_template),
        spec_version=service.spec_version,
        service_id=service.id,
        service_name=service.spec.name,
        service_labels=service.spec.labels,
        slot=slot.number,
        node_id=slot.node_id,
        status=TaskStatus(timestamp=now, message=CREATED),
        desired_state=desired,
        endpoint=service.endpoint,
        job_iteration=service.job_status.job_iteration if service.job_status else None,
    )
    return Create(object=task)


def lower(tasks: Iterable[Task], desired: TaskState) -> list[Update]:
    """Writes that take tasks down to SHUTDOWN or REMOVE; those already there need none."""
    return [
        Update(object=replace(task, desired_state=desired)) for task in tasks if task.desired_state < desired
    ]
