"""One slot's next step, the same for replicated and global services: keep, start, replace or leave it.

A task that is to be replaced while it runs (`slot.outgoing`) goes on until its successor is there: with
start-first until that runs, with stop-first until it is prepared: no image is pulled while nothing runs.

Invariant: but for start-first, a new copy of a slot starts (desired RUNNING) only when no older one may still
run on a host that is up; until then it waits at READY. A node that is DOWN or deleted holds nothing up.
Invariant: tasks that fail again and again are made no faster than their delays allow.
Source: SwarmKit manager/orchestrator/restart/restart.go (DelayStart); there the wait ends after a minute even
if the old copy still runs, here only if the service asks for it (`swarm.restart.overlap`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from swarm.base.ids import IdSource
from swarm.manager.orchestrator.restart import OWN_ENDS, Restart, plan_restart
from swarm.manager.orchestrator.rollout import Rollout
from swarm.manager.orchestrator.slots import Slot, create_task, lower, may_still_run, must_leave
from swarm.manager.orchestrator.waiting import has_no_place, is_late
from swarm.model.objects import Node, Service, Task
from swarm.model.options import service_options
from swarm.model.plan import Create, Op, Plan, Update
from swarm.model.task_state import TaskState
from swarm.model.types import PublishMode, UpdateOrder
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import NodeInfo, host_ports_of
from swarm.scheduler.filters import Requirements, first_refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every step of one service's plan needs."""

    view: ClusterView
    service: Service
    now: datetime
    new_id: IdSource
    rollout: Rollout = field(default_factory=Rollout)
    waits_for: str = ""
    """A dependency that is not as wanted: the first task of a slot does not start yet."""


def is_spent(work: Work, slot: Slot) -> bool:
    """The slot's task has ended and its restart policy wants no other: the slot counts, but nothing runs."""
    return slot.holder is None and plan_restart(slot.tasks, work.service, work.now) is None


def plan_slot(work: Work, slot: Slot) -> Plan:
    """Shut down what is unfit, replace it if the policy says so, start what has waited long enough."""
    others = [task for task in slot.tasks if task is not slot.keeper and task is not slot.outgoing]
    ops = Plan.of(lower(others, TaskState.SHUTDOWN))
    if slot.outgoing is not None:
        plan = ops + _plan_succession(work, slot, slot.outgoing)
    elif slot.keeper is not None:
        plan = ops + _plan_start(work, slot, slot.keeper)
    else:
        restart = plan_restart(slot.tasks, work.service, work.now)
        plan = ops if restart is None else ops + _plan_replacement(work, slot, restart)
    return _noted(work, slot, plan)


# -- the place of a task that still runs -------------------------------------------------------------------


def _plan_succession(work: Work, slot: Slot, outgoing: Task) -> Plan:
    is_leaving = must_leave(work.view, outgoing)
    stop = Plan.of(lower([outgoing], TaskState.SHUTDOWN))
    keeper = slot.keeper
    if keeper is not None:
        if _may_follow(work, keeper, outgoing, is_leaving=is_leaving):
            return stop
        if work.rollout.is_paused and not is_leaving:
            return Plan.of(lower([keeper], TaskState.SHUTDOWN))
        if _is_beside(work, keeper, outgoing):
            return _plan_start(work, slot, keeper)
        return Plan(wake_at=_due(keeper, work.now))
    is_hopeless = is_leaving and slot.tasks[-1].status.state in OWN_ENDS
    if slot.key not in work.rollout.turn and not is_hopeless:
        return Plan() if is_leaving else _plan_start(work, slot, outgoing)
    restart = plan_restart(slot.tasks, work.service, work.now)
    if is_hopeless or outgoing.status.state < TaskState.RUNNING:
        return stop if restart is None else stop + _plan_replacement(work, slot, restart)
    return Plan() if restart is None else _plan_replacement(work, slot, restart)


def _may_follow(work: Work, keeper: Task, outgoing: Task, *, is_leaving: bool) -> bool:
    """The outgoing task may stop for `keeper`."""
    state = keeper.status.state
    if state is TaskState.RUNNING:
        return True
    if work.rollout.is_paused and not is_leaving:
        return False
    if is_leaving and is_late(work.service, keeper, work.now):
        return True
    if has_no_place(keeper):
        # No room for both: the old one makes room, or must go in any case.
        return is_leaving or state is TaskState.NEW or _would_fit(work, keeper, outgoing)
    if state < TaskState.READY or _due(keeper, work.now) is not None:
        return False
    return not _is_beside(work, keeper, outgoing)


def _is_beside(work: Work, keeper: Task, outgoing: Task) -> bool:
    """The two may run at once, and somewhere they can: a host's port has one holder."""
    if work.rollout.order is not UpdateOrder.START_FIRST or not keeper.node_id:
        return False
    return keeper.node_id != outgoing.node_id or host_ports_of(keeper).isdisjoint(host_ports_of(outgoing))


def _would_fit(work: Work, keeper: Task, outgoing: Task) -> bool:
    """The outgoing task's node could take `keeper` in its place."""
    info = NodeInfo(node=work.view.get(Node, outgoing.node_id))
    for task in work.view.tasks_on_node(outgoing.node_id):
        if task.id != outgoing.id:
            info.count(task, 1)
    return first_refusal(Requirements.of(keeper), info) is None


def _noted(work: Work, slot: Slot, plan: Plan) -> Plan:
    """What the update has seen of the slot's tasks is written with what becomes of them."""
    rollout = work.rollout
    if rollout.started_at is None:
        return plan
    notes = {task.id: task for task in slot.tasks if task.id in rollout.failed}
    keeper = slot.keeper
    if keeper and slot.key in rollout.touched and _is_new_to_run(keeper):
        notes[keeper.id] = keeper
    if not notes:
        return plan
    changed = {op.object.id: op.object for op in plan.ops if isinstance(op, Update)}
    ops: list[Op] = []
    for task in notes.values():
        latest = changed.get(task.id, task)
        assert isinstance(latest, Task)
        ops.append(Update(object=_with_note(latest, rollout, work.now)))
    ops += (op for op in plan.ops if op.object.id not in notes)  # what is lowered goes before what is made
    return Plan.of(ops, plan.wake_at)


def _is_new_to_run(task: Task) -> bool:
    return task.status.state is TaskState.RUNNING and task.running_since is None


def _with_note(task: Task, rollout: Rollout, now: datetime) -> Task:
    if task.id in rollout.failed:
        return replace(task, failed_update=rollout.started_at)
    return replace(task, running_since=now)


# -- the place of a task that is gone ----------------------------------------------------------------------


def _plan_replacement(work: Work, slot: Slot, restart: Restart) -> Plan:
    due = _due(slot.tasks[-1], work.now) if slot.tasks else None
    if restart.delay and due is not None:
        # Its node refused it while it was prepared, before its time had come: a successor made now would be
        # refused at once too, and so on without end. The delay that this one had is waited out first.
        return Plan(wake_at=due)
    must_wait = restart.delay or _is_taken(work, slot, None) or _is_held_back(work, slot, None)
    if slot.outgoing is not None and slot.outgoing.status.state is TaskState.RUNNING:
        must_wait = must_wait or work.rollout.order is not UpdateOrder.START_FIRST or _has_host_ports(work)
    desired = TaskState.READY if must_wait else TaskState.RUNNING
    create = create_task(work.view, work.service, slot, desired, work.now, work.new_id)
    if not restart.delay:
        return Plan.of([create])
    start_after = work.now + restart.delay
    assert isinstance(create.object, Task)
    return Plan.of([Create(object=replace(create.object, start_after=start_after))], wake_at=start_after)


def _plan_start(work: Work, slot: Slot, keeper: Task) -> Plan:
    if keeper.desired_state >= TaskState.RUNNING or _is_taken(work, slot, keeper):
        return Plan()
    if _is_held_back(work, slot, keeper):
        return Plan()
    due = _due(keeper, work.now)
    if due is not None:
        return Plan(wake_at=due)
    return Plan.of([Update(object=replace(keeper, desired_state=TaskState.RUNNING))])


def _is_held_back(work: Work, slot: Slot, keeper: Task | None) -> bool:
    """A dependency is missing, and no task of the slot has ever run."""
    return bool(work.waits_for) and not any(
        task.status.state >= TaskState.RUNNING and task.status.state is not TaskState.REJECTED
        for task in (*slot.tasks, *slot.leaving)
        if task is not keeper
    )


def _due(task: Task, now: datetime) -> datetime | None:
    """When the task's delay will be over; None when it is, or the clock was set back behind its start."""
    if task.start_after is None or (task.meta.created_at is not None and now < task.meta.created_at):
        return None
    return task.start_after if task.start_after > now else None


def _is_taken(work: Work, slot: Slot, keeper: Task | None) -> bool:
    """Another copy of the slot may still run that must not run beside `keeper`."""
    others = (task for task in (*slot.tasks, *slot.leaving) if task is not keeper)
    return any(may_still_run(work.view, task) and not _tolerates(work, slot, keeper, task) for task in others)


def _tolerates(work: Work, slot: Slot, keeper: Task | None, other: Task) -> bool:
    if other is slot.outgoing:
        order = work.rollout.order
        return order is UpdateOrder.START_FIRST if keeper is None else _is_beside(work, keeper, other)
    is_stopping = other.desired_state > TaskState.RUNNING
    return is_stopping and service_options(work.service.spec.labels).restart_overlap


def _has_host_ports(work: Work) -> bool:
    return any(port.publish_mode is PublishMode.HOST for port in work.service.endpoint.ports)
