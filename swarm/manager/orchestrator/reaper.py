"""The task reaper: which task records can go.

The view in, deletions out. A record goes when it was only to be removed and no agent has anything left to
report of it, or when its slot has more dead tasks than the history keeps.
Invariant: a task that an agent may still run keeps its record, and so does the one that tells a restart
policy that its slot is spent.
Source: SwarmKit manager/orchestrator/taskreaper/task_reaper.go.
"""

from __future__ import annotations

from swarm.base.ids import NodeID, ServiceID
from swarm.manager.orchestrator.restart import policy_of
from swarm.manager.orchestrator.rollout import is_under_way
from swarm.manager.orchestrator.slots import age, is_abandoned
from swarm.model.exclusive import is_exclusive
from swarm.model.objects import Cluster, Service, StoredObject, Task
from swarm.model.plan import Delete, Op, Plan
from swarm.model.specs import ClusterSpec
from swarm.model.task_state import TaskState, is_dead
from swarm.model.view import ClusterView

SlotKey = tuple[ServiceID, int, NodeID]
SEEN_BY_UPDATES = 5
"""An update counts failures, and knows a slot that it has reached by the old task there."""


def plan_reaper(view: ClusterView) -> Plan:
    """Delete removed tasks that have stopped, and each slot's oldest dead tasks beyond the history limit."""
    ops: list[Op] = []
    history: dict[SlotKey, list[Task]] = {}
    running: set[SlotKey] = set()
    for task in view.list(Task):
        key = (task.service_id, task.slot, task.node_id if not task.slot else NodeID(""))
        if task.desired_state <= TaskState.RUNNING:
            if task.status.state is TaskState.RUNNING:
                running.add(key)
        elif not _is_finished(view, task):
            continue
        elif task.desired_state is TaskState.REMOVE:
            ops.append(Delete(object=task))
        else:
            history.setdefault(key, []).append(task)
    for key, tasks in history.items():
        limit = _limit(view, key[0], is_running=key in running)
        if limit is not None and len(tasks) > limit:
            tasks.sort(key=age)
            ops += [Delete(object=task) for task in tasks[: len(tasks) - limit]]
    return Plan.of(ops)


def concerns_reaper(old: StoredObject | None, new: StoredObject | None) -> bool:
    """Of tasks, those that are on their way out, and new ones, beside which older ones become history."""
    if old is None or not isinstance(new, Task):
        return True
    return new.desired_state > TaskState.RUNNING or is_dead(new.status.state)


def _is_finished(view: ClusterView, task: Task) -> bool:
    """No agent has or will have the task: never handed out, ended, or its node cannot be asked. Should that
    node come back, its agent stops whatever is not in its assignments."""
    state = task.status.state
    if state < TaskState.ASSIGNED or is_dead(state):
        return True
    is_awaited = is_exclusive(task) and view.get(Service, task.service_id) is not None
    return is_abandoned(view, task) and not is_awaited


def _limit(view: ClusterView, service_id: ServiceID, *, is_running: bool) -> int | None:
    """How many dead tasks a slot keeps; None for all. What policies and updates still look at is kept."""
    clusters = view.list(Cluster)
    spec = clusters[0].spec if clusters else ClusterSpec()
    if spec.task_history_retention_limit < 0:
        return None
    service = view.get(Service, service_id)
    attempts = policy_of(service).max_attempts if service else 0
    return max(
        spec.task_history_retention_limit,
        attempts + 1 if attempts else 0,
        SEEN_BY_UPDATES if service and is_under_way(service) else 0,
        0 if is_running else 1,
    )
