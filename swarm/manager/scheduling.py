"""The scheduler's place in the leader: its accounting is kept in step with the store, change by change."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime

from swarm.manager.loop import Planner
from swarm.model.objects import Node, Service, StoredObject, Task
from swarm.model.plan import Plan
from swarm.model.task_state import TaskState, is_dead
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import Accounting
from swarm.scheduler.schedule import plan_scheduling
from swarm.store.changes import Change, ObjectKey

_ALL = ("all",)


def scheduler_planner(rng: random.Random) -> Planner:
    """A planner with an accounting of its own, built when it starts to lead."""
    keeper = _Keeper(rng)
    return Planner(
        name="scheduler",
        kinds=(Task, Node, Service),
        all_keys=keeper.build,
        keys_of=keeper.follow,
        plan=keeper.plan,
    )


def concerns_scheduling(old: StoredObject | None, new: StoredObject | None) -> bool:
    """Of tasks, those that wait for a node and those that give back some of what they had of theirs."""
    if not isinstance(old, Task) or not isinstance(new, Task):
        return True
    is_waiting = new.status.state < TaskState.ASSIGNED
    return is_waiting or is_dead(new.status.state) or new.desired_state != old.desired_state


class _Keeper:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._accounting: Accounting | None = None

    def build(self, view: ClusterView) -> Iterable[str]:
        self._accounting = Accounting.of(view)
        return _ALL

    def follow(self, _: ObjectKey, change: Change) -> Iterable[str]:
        assert self._accounting is not None, "build comes first"
        self._accounting.apply(change.old, change.new)
        return _ALL if concerns_scheduling(change.old, change.new) else ()

    def plan(self, view: ClusterView, _: str, now: datetime) -> Plan:
        return plan_scheduling(view, now, self._rng, self._accounting)
