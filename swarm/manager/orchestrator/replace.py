"""One slot's next step, the same for replicated and global services: keep, start, replace or leave it.

Invariant: a new copy of a slot starts (desired RUNNING) only when no older one may still run on a host that
is up; until then it waits at READY. A node that is DOWN or deleted holds nothing up.
Invariant: tasks that fail again and again are made no faster than their delays allow.
Source: SwarmKit manager/orchestrator/restart/restart.go (DelayStart); there the wait ends after a minute even
if the old copy still runs, here it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from swarm.base.ids import IdSource
from swarm.manager.orchestrator.restart import Restart, plan_restart
from swarm.manager.orchestrator.slots import Slot, create_task, lower, may_still_run
from swarm.model.objects import Service, Task
from swarm.model.plan import Create, Plan, Update
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every step of one service's plan needs."""

    view: ClusterView
    service: Service
    now: datetime
    new_id: IdSource


def is_spent(work: Work, slot: Slot) -> bool:
    """The slot's task has ended and its restart policy wants no other: the slot counts, but nothing runs."""
    return slot.keeper is None and plan_restart(slot.tasks, work.service, work.now) is None


def plan_slot(work: Work, slot: Slot) -> Plan:
    """Shut down what is unfit, replace it if the policy says so, start what has waited long enough."""
    others = [task for task in slot.tasks if task is not slot.keeper]
    ops = Plan.of(lower(others, TaskState.SHUTDOWN))
    if slot.keeper is not None:
        return ops + _plan_start(work, slot, slot.keeper)
    restart = plan_restart(slot.tasks, work.service, work.now)
    return ops if restart is None else ops + _plan_replacement(work, slot, restart)


def _plan_replacement(work: Work, slot: Slot, restart: Restart) -> Plan:
    due = _due(slot.tasks[-1], work.now) if slot.tasks else None
    if restart.delay and due is not None:
        # Its node refused it while it was prepared, before its time had come: a successor made now would be
        # refused at once too, and so on without end. The delay that this one had is waited out first.
        return Plan(wake_at=due)
    must_wait = restart.delay or _is_taken(work, slot, None)
    desired = TaskState.READY if must_wait else TaskState.RUNNING
    create = create_task(work.service, slot, desired, work.now, work.new_id)
    if not restart.delay:
        return Plan.of([create])
    start_after = work.now + restart.delay
    assert isinstance(create.object, Task)
    return Plan.of([Create(object=replace(create.object, start_after=start_after))], wake_at=start_after)


def _plan_start(work: Work, slot: Slot, keeper: Task) -> Plan:
    if keeper.desired_state >= TaskState.RUNNING or _is_taken(work, slot, keeper):
        return Plan()
    due = _due(keeper, work.now)
    if due is not None:
        return Plan(wake_at=due)
    return Plan.of([Update(object=replace(keeper, desired_state=TaskState.RUNNING))])


def _due(task: Task, now: datetime) -> datetime | None:
    """When the task's delay will be over; None when it is, or the clock was set back behind its start."""
    if task.start_after is None or (task.meta.created_at is not None and now < task.meta.created_at):
        return None
    return task.start_after if task.start_after > now else None


def _is_taken(work: Work, slot: Slot, keeper: Task | None) -> bool:
    return any(may_still_run(work.view, task) for task in (*slot.tasks, *slot.leaving) if task is not keeper)
