"""The scheduler: pending tasks in, a node for each or the reason why none fits out.

Invariant: a task gets a node once and keeps it; the tasks of one plan never take more of a node than it has;
a reason is written when it changes and not again on every pass.
Source: SwarmKit manager/scheduler/scheduler.go.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from functools import partial
from random import Random

from swarm.base.ids import NodeID, ServiceID
from swarm.model.generic_resources import claim
from swarm.model.objects import Task, TaskStatus
from swarm.model.plan import Op, Plan, Update
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import Accounting, NodeInfo
from swarm.scheduler.filters import Requirements, explain, first_refusal
from swarm.scheduler.spread import Branch, Rank, rank

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
        self._placed: dict[ServiceID, dict[int, Counter[NodeID]]] = {}

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
                alone = task.id if self._replaced_by(task) else ""
                key = (task.service_id, task.spec_version.index, task.endpoint.ports, alone)
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

    def _replaced_by(self, task: Task) -> Counter[NodeID] | None:
        """Where the slot's other tasks are: an update may start the new one before the old one has ended."""
        if task.service_id not in self._placed:
            placed: dict[int, Counter[NodeID]] = {}
            for other in self._view.tasks_of_service(task.service_id):
                if (
                    other.slot
                    and TaskState.ASSIGNED <= other.status.state <= TaskState.RUNNING
                    and other.desired_state <= TaskState.RUNNING
                ):
                    placed.setdefault(other.slot, Counter())[other.node_id] += 1
            self._placed[task.service_id] = placed
        return self._placed[task.service_id].get(task.slot)

    def _place_preassigned(self, task: Task) -> None:
        """A global service's task: its node is fixed, only whether the node can take it is open."""
        wanted = Requirements.of(task)
        info = self._accounting.get(task.node_id) or NodeInfo()
        if first_refusal(wanted, info):
            self._explain(task, explain(wanted, [info]))
        else:
            self._assign(task, wanted, info)

    def _place_group(self, tasks: list[Task]) -> None:
        """Tasks that ask for the same. Only the node just taken changes its rank: one order serves all."""
        wanted = Requirements.of(tasks[0], self._replaced_by(tasks[0]))

        def ranked(info: NodeInfo) -> Rank | None:
            return None if first_refusal(wanted, info) else rank(wanted, info, self._now, self._rng)

        nodes = self._accounting.list()
        branch = Branch(nodes, wanted, ranked)
        reason = ""
        for task in tasks:
            if not branch.take(partial(self._assign, task, wanted)):
                reason = reason or explain(wanted, nodes)
                self._explain(task, reason)

    def _assign(self, task: Task, wanted: Requirements, info: NodeInfo) -> None:
        assert info.node is not None, "a node that passed the filters exists"
        offered = info.node.description.resources.generic_resources
        assigned = replace(
            task,
            node_id=info.node.id,
            status=TaskStatus(timestamp=self._now, state=TaskState.ASSIGNED, message=ASSIGNED),
            assigned_generic_resources=(claim(wanted.generic, offered, info.claimed) or ()),
        )
        self._accounting.apply(None, assigned)
        self._counted.append(assigned)
        self._ops.append(Update(object=assigned))

    def _explain(self, task: Task, reason: str) -> None:
        if task.status.err != reason:
            status = replace(task.status, timestamp=self._now, message=PENDING, err=reason)
            self._ops.append(Update(object=replace(task, status=status)))
