"""Jobs: tasks that run to completion, so many of them or one on every node, once or on a schedule.

Each run of a job is an *iteration*; a task carries the number of its own. A slot of an iteration is finished
when a task of it has completed; one that failed is tried again as the restart policy says (`any` means
`on-failure` here, since a job that has completed is done).
Invariant: no iteration has more unfinished slots at work than `max_concurrent`, nor more slots than it has
completions. What an older iteration left goes, but for the history of scheduled runs.
Source: SwarmKit manager/orchestrator/jobs/{replicated,global}/reconciler.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice

from swarm.manager.orchestrator.global_ import is_wanted
from swarm.manager.orchestrator.replace import Work, is_spent, plan_slot
from swarm.manager.orchestrator.slots import Slot, is_open, lower, slots_by_node, slots_by_number
from swarm.model.objects import Node, Service, Task
from swarm.model.options import Concurrency, service_options
from swarm.model.plan import Plan, join
from swarm.model.specs import ReplicatedJob
from swarm.model.task_state import TaskState, is_dead
from swarm.model.view import ClusterView


def plan_job(work: Work) -> Plan:
    """The next steps of the current iteration, and what becomes of the older ones."""
    current: list[Task] = []
    older: list[Task] = []
    for task in work.view.tasks_of_service(work.service.id):
        (current if iteration_of(task) == current_iteration(work.service) else older).append(task)
    plan = _plan_older(work, older)
    if work.service.job_status is None or not _has_begun(work.service):
        return plan
    mode = work.service.spec.mode
    if mode.replicated_job is not None:
        return plan + _plan_replicated(work, mode.replicated_job, current)
    return plan + _plan_global(work, current)


def concurrency_and_total(mode: ReplicatedJob) -> tuple[int, int]:
    concurrent = 1 if mode.max_concurrent is None else mode.max_concurrent
    return concurrent, concurrent if mode.total_completions is None else mode.total_completions


def current_iteration(service: Service) -> int:
    return service.job_status.job_iteration.index if service.job_status else 0


def iteration_of(task: Task) -> int:
    return task.job_iteration.index if task.job_iteration else 0


def is_finished(view: ClusterView, service: Service) -> bool:
    """The current iteration has nothing left to do."""
    tasks = [
        task
        for task in view.tasks_of_service(service.id)
        if iteration_of(task) == current_iteration(service) and task.desired_state < TaskState.REMOVE
    ]
    if not _has_begun(service) or any(not is_dead(task.status.state) for task in tasks):
        return False
    mode = service.spec.mode
    completed = _completed(tasks)
    if mode.replicated_job is not None:
        return len(completed) >= concurrency_and_total(mode.replicated_job)[1]
    done = {task.node_id for task in completed.values()}
    return all(node.id in done for node in view.list(Node) if is_wanted(service, node))


def _has_begun(service: Service) -> bool:
    """A scheduled job does nothing before its first time has come."""
    return service.job_status is not None and service.job_status.last_execution is not None


def _completed(tasks: Iterable[Task]) -> dict[object, Task]:
    """The task that finished each slot."""
    return {task.slot or task.node_id: task for task in tasks if task.status.state is TaskState.COMPLETE}


def _plan_replicated(work: Work, mode: ReplicatedJob, tasks: list[Task]) -> Plan:
    concurrent, total = concurrency_and_total(mode)
    completed = _completed(tasks)
    slots = slots_by_number(work.view, tasks)
    surplus = [slot for slot in slots.values() if slot.number > total and slot.number not in completed]
    unfinished = [
        slot
        for slot in slots.values()
        if slot.tasks and slot.number <= total and slot.number not in completed
    ]
    at_work = [slot for slot in unfinished if not is_spent(work, slot)]
    free = (Slot(number=n) for n in islice(count(1), total) if n not in slots)
    fresh = islice(free, max(concurrent - len(at_work), 0))
    steps = [plan_slot(work, slot) for slot in (*sorted(at_work, key=lambda slot: slot.number), *fresh)]
    return join([Plan.of(op for slot in surplus for op in lower(slot.tasks, TaskState.REMOVE)), *steps])


def _plan_global(work: Work, tasks: list[Task]) -> Plan:
    completed = _completed(tasks)
    slots = slots_by_node(work.view, tasks)
    plans = []
    for node in work.view.list(Node):
        slot = slots.pop(node.id, Slot(node_id=node.id))
        if node.id in completed:
            continue
        if is_wanted(work.service, node) and (is_open(node) or slot.keeper is not None):
            if not is_spent(work, slot):
                plans.append(plan_slot(work, slot))
        else:
            plans.append(Plan.of(lower(slot.tasks, TaskState.SHUTDOWN)))
    gone = [Plan.of(lower(slot.tasks, TaskState.REMOVE)) for slot in slots.values()]
    return join([*plans, *gone])


def _plan_older(work: Work, tasks: Iterable[Task]) -> Plan:
    """Tasks of another template go; those of earlier runs stay as history, and at work if that is allowed."""
    schedule = service_options(work.service.spec.labels).schedule
    if schedule is None:
        return Plan.of(lower(tasks, TaskState.REMOVE))
    oldest_kept = current_iteration(work.service) - schedule.history
    ops = []
    for task in tasks:
        is_at_work = not is_dead(task.status.state)
        if task.spec_version != work.service.spec_version and is_at_work:
            ops += lower([task], TaskState.REMOVE)
        elif is_at_work and schedule.concurrency is not Concurrency.ALLOW:
            ops += lower([task], TaskState.SHUTDOWN)
        elif not is_at_work and iteration_of(task) <= oldest_kept:
            ops += lower([task], TaskState.REMOVE)
    return Plan.of(ops)
