"""The scheduler: pending tasks in, a node for each or the reason why none fits out.

Invariant: a task gets a node once and keeps it; the tasks of one plan never take more of a node than it has;
a reason is written when it changes and not again on every pass.
Source: SwarmKit manager/scheduler/scheduler.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from heapq import heapify, heappop, heappush
from random import Random

from swarm.base.ids import NodeID
from swarm.model.objects import Task, TaskStatus
from swarm.model.plan import Op, Plan, Update
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import Accounting, NodeInfo
from swarm.scheduler.filters import Requirements, explain, first_refusal
from swarm.scheduler.spread import Rank, rank

ASSIGNED = "scheduler assigned task to node"
PENDING = "pending task scheduling"
NEVER_ASSIGNED = "shutdown before it was assigned to a node"


def plan_scheduling(
    view: ClusterView, now: datetime, rng: Random, accounting: Accounting | None = None
) -> Plan:
    """Give every pending task a node, or say why it has none.

    `accounting` is the caller's, kept in step with `view`; it is as before when this returns, since what the
    plan decides becomes true only when the store has it. Without one it is built from the view.
    """
    return _Pass(view, now, rng, accounting or Accounting.of(view)).plan()


class _Pass:
    """One pass of the scheduler. The accounting moves along with its decisions and is put back at the end."""

    def __init__(self, view: ClusterView, now: datetime, rng: Random, accounting: Accounting) -> None:
        self._view = view
        self._now = now
        self._rng = rng
        self._accounting = accounting
        self._ops: list[Op] = []
        self._counted: list[Task] = []

    def plan(self) -> Plan:
        preassigned: list[Task] = []
        groups: dict[object, list[Task]] = {}
        for task in self._view.list(Task):
            if task.status.state >= TaskState.ASSIGNED:
                continue
            if task.desired_state > TaskState.RUNNING:
                self._give_up(task)
            elif task.status.state is TaskState.PENDING and task.node_id:
                preassigned.append(task)
            elif task.status.state is TaskState.PENDING:
                key = (task.service_id, task.spec_version.index, task.endpoint.ports)
                groups.setdefault(key, []).append(task)
        try:
            for task in preassigned:
                self._place_preassigned(task)
            for group in groups.values():
                self._place_group(group)
        finally:
            for task in self._counted:
                self._accounting.apply(task, None)
        return Plan.of(self._ops)

    def _give_up(self, task: Task) -> None:
        # A task that is only to be removed is the reaper's.
        if task.desired_state is TaskState.SHUTDOWN:
            status = TaskStatus(timestamp=self._now, state=TaskState.SHUTDOWN, message=NEVER_ASSIGNED)
            self._ops.append(Update(object=replace(task, status=status)))

    def _place_preassigned(self, task: Task) -> None:
        """A global service's task: its node is fixed, only whether the node can take it is open."""
        wanted = Requirements.of(task)
        info = self._accounting.get(task.node_id) or NodeInfo()
        if first_refusal(wanted, info):
            self._explain(task, explain(wanted, [info]))
        else:
            self._assign(task, task.node_id)

    def _place_group(self, tasks: list[Task]) -> None:
        """Tasks that ask for the same. Only the node just taken changes its rank: one heap serves all."""
        wanted = Requirements.of(tasks[0])
        heap = list(self._candidates(wanted))
        heapify(heap)
        reason = ""
        for task in tasks:
            if not heap:
                reason = reason or explain(wanted, self._accounting.list())
                self._explain(task, reason)
                continue
            _, node_id, info = heappop(heap)
            self._assign(task, node_id)
            if not first_refusal(wanted, info):
                heappush(heap, (rank(wanted, info, self._now, self._rng), node_id, info))

    def _candidates(self, wanted: Requirements) -> Iterator[tuple[Rank, NodeID, NodeInfo]]:
        for info in self._accounting.list():
            if info.node is not None and not first_refusal(wanted, info):
                yield rank(wanted, info, self._now, self._rng), info.node.id, info

    def _assign(self, task: Task, node_id: NodeID) -> None:
        status = TaskStatus(timestamp=self._now, state=TaskState.ASSIGNED, message=ASSIGNED)
        assigned = replace(task, node_id=node_id, status=status)
        self._accounting.apply(None, assigned)
        self._counted.append(assigned)
        self._ops.append(Update(object=assigned))

    def _explain(self, task: Task, reason: str) -> None:
        if task.status.err != reason:
            status = replace(task.status, timestamp=self._now, message=PENDING, err=reason)
            self._ops.append(Update(object=replace(task, status=status)))
