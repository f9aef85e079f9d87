"""How far an update has come, and which slots may be replaced now: for updates, rollbacks and moves.

A service, its slots and `now` in; a `Rollout` out: whose turn it is, what has failed, and what the service's
`update_status` becomes. Nothing is remembered: times are those that a leader stamped on tasks
(`created_at`, `running_since`), and `failed_update` tells which update a task's end counted against.
Invariant: no more slots than `parallelism` are without their old task because of a rollout.
Invariant: every update completes, pauses or is rolled back: what does not come up within the progress
deadline has failed, and when failures exceed the ratio the failure action is taken.
Source: SwarmKit manager/orchestrator/update/updater.go, which waits for ever for a task to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from swarm.base.errors import FailedPrecondition, SwarmError
from swarm.base.ids import TaskID
from swarm.manager.allocator.ports import allocate_ports
from swarm.manager.orchestrator.restart import OWN_ENDS
from swarm.manager.orchestrator.slots import (
    LONG_AGO,
    Judge,
    Slot,
    SlotKey,
    is_abandoned,
    is_open,
    may_still_run,
    must_leave,
)
from swarm.manager.orchestrator.waiting import has_no_place, is_late, late_at
from swarm.model.defaults import UPDATE_MONITOR
from swarm.model.objects import Node, Service, Task
from swarm.model.options import service_options
from swarm.model.plan import Plan, Update, earliest
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import FailureAction, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus, Version
from swarm.model.view import ClusterView

ROLLING_BACK = frozenset({UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED})
UNDER_WAY = frozenset({UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED})
PAUSED = frozenset({UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED})
DEFAULT = UpdateConfig()
ROLLED_BACK = "update rolled back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    plan: Plan = field(default_factory=Plan)
    """What becomes of the service's update status."""
    is_turned: bool = False
    """The service's spec changes with `plan`: tasks are looked at again when it has."""
    order: UpdateOrder = UpdateOrder.STOP_FIRST
    turn: frozenset[SlotKey] = frozenset()
    """Slots whose outgoing task may be replaced now."""
    is_paused: bool = False
    started_at: datetime | None = None
    """Set while an update or a rollback is under way."""
    failed: frozenset[TaskID] = frozenset()
    """Tasks whose failure counts against the update and is to be noted."""
    touched: frozenset[SlotKey] = frozenset()
    """Slots that the update has reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    task: Task
    cause: str


def config_of(service: Service) -> UpdateConfig:
    """How tasks are replaced at present."""
    state = service.update_status.state if service.update_status else None
    chosen = service.spec.rollback_config if state in ROLLING_BACK else service.spec.update_config
    return chosen or DEFAULT


def plan_rollout(
    view: ClusterView, service: Service, slots: Sequence[Slot], is_outdated: Judge, now: datetime
) -> Rollout:
    """`slots` are those that the service is to keep."""
    return _Progress(view, service, slots, is_outdated, now).plan()


class _Progress:
    """One look at a service. Immutable once made; the methods only answer questions."""

    def __init__(
        self,
        view: ClusterView,
        service: Service,
        slots: Sequence[Slot],
        is_outdated: Judge,
        now: datetime,
    ) -> None:
        self._view = view
        self._service = service
        self._is_outdated = is_outdated
        self._now = now
        self._config = config_of(service)
        self._slots = slots
        self._behind = [slot for slot in slots if self._is_behind(slot)]
        status = service.update_status
        if status is None and self._behind:
            status = UpdateStatus(message="update in progress")
        if status is not None and status.started_at is None and status.state in UNDER_WAY:
            status = replace(status, started_at=now)
        self._status = status
        self._is_under_way = status is not None and status.state in UNDER_WAY
        self._touched = [s for s in slots if any(map(is_outdated, s.tasks))] if self._is_under_way else []
        self._touched_keys = frozenset(slot.key for slot in self._touched)
        self._limit = service_options(service.spec.labels).progress_deadline

    # -- the whole -----------------------------------------------------------------------------------------

    def plan(self) -> Rollout:
        status = self._status
        if status is None or not self._is_under_way:
            is_paused = status is not None and status.state in PAUSED
            return Rollout(
                plan=Plan(wake_at=self._late_at()),
                order=self._config.order,
                turn=self._turn(is_paused=is_paused),
                is_paused=is_paused,
            )
        failures = self._new_failures()
        if self._is_too_much(failures):
            return self._act(status, failures)
        plan, is_complete = self._conclude(status, failures)
        due = None if is_complete else self._delay_over()
        rollout = Rollout(
            plan=plan,
            order=self._config.order,
            turn=self._turn(is_paused=due is not None),
            started_at=status.started_at,
            failed=frozenset(failure.task.id for failure in failures),
            touched=self._touched_keys,
        )
        return replace(rollout, plan=replace(plan, wake_at=earliest(plan.wake_at, due)))

    def _conclude(self, status: UpdateStatus, failures: list[Failure]) -> tuple[Plan, bool]:
        """The update's start, its end, or when to look again."""
        wake_at = self._deadline()
        open_slots = [slot for slot in self._behind if not self._has_failed(slot)]
        if not failures and not open_slots and not any(self._is_pending(slot) for slot in self._touched):
            over = self._monitored_until()
            if over is None:
                return self._written(_completed(status, self._failures_told(), self._now)), True
            wake_at = earliest(wake_at, over)
        if self._service.update_status != status:
            return replace(self._written(status), wake_at=wake_at), False
        return Plan(wake_at=wake_at), False

    def _written(self, status: UpdateStatus) -> Plan:
        return Plan.of([Update(object=replace(self._service, update_status=status))])

    # -- whose turn it is ----------------------------------------------------------------------------------

    def _turn(self, *, is_paused: bool) -> frozenset[SlotKey]:
        """Those that have to leave their nodes first, then those of older templates, what does not run first.

        A slot whose new task has failed already is tried again beside the others: its old task still runs.
        One whose new task finds no node, or does not come up, holds up nothing that has to leave its node.
        """
        waiting = [slot for slot in self._slots if slot.outgoing and not slot.keeper and self._is_open(slot)]
        if not waiting:
            return frozenset()
        leaving = [s.key for s in waiting if s.outgoing and must_leave(self._view, s.outgoing)]
        moved = frozenset(leaving)
        behind = [] if is_paused else [slot for slot in waiting if slot.key not in moved]
        behind.sort(key=lambda slot: (slot.outgoing is not None and _runs(slot.outgoing), slot.key))
        again = [slot.key for slot in behind if self._has_failed(slot)]
        queue = [slot.key for slot in behind if not self._has_failed(slot)]
        if self._config.parallelism:
            between = [slot for slot in self._slots if self._is_between(slot)]
            hopeless = sum(slot.keeper is not None and self._is_given_up(slot.keeper) for slot in between)
            leaving = leaving[: max(self._config.parallelism - len(between) + hopeless, 0)]
            queue = queue[: max(self._config.parallelism - len(between) - len(leaving), 0)]
        return frozenset((*leaving, *queue, *again))

    def _is_given_up(self, task: Task) -> bool:
        return has_no_place(task) or is_late(self._service, task, self._now)

    def _delay_over(self) -> datetime | None:
        """When the next slot may follow the one that came up last; None for now."""
        since = self._up_since()
        return self._open_until(since, self._config.delay) if since else None

    def _up_since(self) -> datetime | None:
        """When the update's latest task came up."""
        running = [slot.keeper for slot in self._touched if slot.keeper and _runs(slot.keeper)]
        if any(task.running_since is None for task in running):
            return self._now
        times = [t.running_since for slot in self._touched for t in slot.tasks if t.running_since]
        return max(times, default=None)

    def _open_until(self, since: datetime, wait: timedelta) -> datetime | None:
        """When `wait` will be over; None when it is, or the clock was set back behind its start."""
        return since + wait if since <= self._now < since + wait else None

    def _late_at(self) -> datetime | None:
        """When a task that is waited for has had its time, for the sake of those that are still to move."""
        if not any(slot.outgoing for slot in self._slots):
            return None
        awaited = [slot.keeper for slot in self._slots if slot.keeper and not _runs(slot.keeper)]
        times = (late_at(self._service, task) for task in awaited)
        return earliest(*(at for at in times if at and at > self._now))

    # -- what has failed -----------------------------------------------------------------------------------

    def _new_failures(self) -> list[Failure]:
        ended = (task for slot in self._touched for task in slot.tasks if self._has_just_failed(task))
        found = [
            Failure(task=task, cause=f"failure or early termination of task {task.id}") for task in ended
        ]
        stuck = self._stuck()
        cause = f"no progress for {_words(self._limit)} of task"
        found += [Failure(task=task, cause=f"{cause} {task.id}") for task in stuck]
        return found

    def _has_just_failed(self, task: Task) -> bool:
        """It ended by itself before it ran, or soon after. One that was told to stop was looked at before."""
        if task.desired_state > TaskState.RUNNING or task.status.state not in OWN_ENDS:
            return False
        if task.failed_update == self._started_at or self._is_outdated(task):
            return False
        return task.running_since is None or self._now < task.running_since + self._monitor

    def _stuck(self) -> list[Task]:
        """Tasks that wait to come up although no other has come up for as long as the deadline says."""
        return [task for task, at in self._deadlines() if at <= self._now]

    def _deadline(self) -> datetime | None:
        """When the first of those that wait will be late."""
        return earliest(*(at for _, at in self._deadlines()))

    def _deadlines(self) -> list[tuple[Task, datetime]]:
        """For each task that is awaited: the deadline after it was made, or after another came up last."""
        if not self._limit:
            return []
        times = [task.running_since for slot in self._touched for task in slot.tasks]
        progress = max(t for t in (*times, self._started_at, LONG_AGO) if t is not None)
        pending = [slot.keeper for slot in self._touched if slot.keeper and self._is_pending(slot)]
        return [(task, max(progress, task.meta.created_at or LONG_AGO) + self._limit) for task in pending]

    def _is_too_much(self, failures: list[Failure]) -> bool:
        if not failures or self._config.failure_action is FailureAction.CONTINUE:
            return False
        noted = sum(t.failed_update == self._started_at for slot in self._slots for t in slot.tasks)
        return noted + len(failures) > self._config.max_failure_ratio * len(self._slots)

    def _failures_told(self) -> str:
        """What failed although that was not too much."""
        failed = [t for slot in self._slots for t in slot.tasks if t.failed_update == self._started_at]
        if not failed:
            return ""
        number = "one task" if len(failed) == 1 else f"{len(failed)} tasks"
        return f", but {number} failed: {_told(self._view, failed[-1])}"

    def _act(self, status: UpdateStatus, failures: list[Failure]) -> Rollout:
        """Pause or roll back, naming the task that was one too many."""
        failure = failures[-1]
        is_rollback = status.state is UpdateState.ROLLBACK_STARTED
        reason = f"due to {failure.cause}: {_told(self._view, failure.task)}"
        refusal = ""
        if self._config.failure_action is FailureAction.ROLLBACK and not is_rollback:
            try:
                return self._rolled_back(f"{ROLLED_BACK} {reason}")
            except SwarmError as error:
                refusal = f" (it cannot be rolled back: {error})"
        state = UpdateState.ROLLBACK_PAUSED if is_rollback else UpdateState.PAUSED
        what = "rollback" if is_rollback else "update"
        paused = replace(status, state=state, message=f"{what} paused {reason}{refusal}")
        return Rollout(
            plan=self._written(paused),
            order=self._config.order,
            turn=self._turn(is_paused=True),
            is_paused=True,
            started_at=status.started_at,
            failed=frozenset(failure.task.id for failure in failures),
        )

    def _rolled_back(self, message: str) -> Rollout:
        """Raises SwarmError when the previous spec is not there or its ports are taken."""
        status = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at=self._now, message=message)
        service = rolled_back(self._view, self._service)
        turned = replace(service, previous_spec=None, previous_spec_version=Version(), update_status=status)
        return Rollout(plan=Plan.of([Update(object=turned)]), is_turned=True)

    # -- one slot ------------------------------------------------------------------------------------------

    def _is_open(self, slot: Slot) -> bool:
        """A global service's task stays as it is while its node cannot take another."""
        node = self._view.get(Node, slot.node_id) if slot.node_id else None
        return not slot.node_id or (node is not None and is_open(node))

    def _is_behind(self, slot: Slot) -> bool:
        """No task of the current template works here yet."""
        if slot.keeper is not None or not slot.tasks or not self._is_open(slot):
            return False
        newest = slot.outgoing or slot.tasks[-1]
        return self._is_outdated(newest)

    def _has_failed(self, slot: Slot) -> bool:
        began = self._started_at
        return began is not None and any(task.failed_update == began for task in slot.tasks)

    def _is_pending(self, slot: Slot) -> bool:
        """The slot has its new task and that does not run yet, or the one before it still does."""
        if slot.keeper is None or self._has_failed(slot):
            return False
        return not _runs(slot.keeper) or slot.outgoing is not None

    def _is_between(self, slot: Slot) -> bool:
        """One task of the slot is being replaced by the other because the rollout wants it so."""
        others = [task for task in slot.tasks if task is not slot.keeper and task is not slot.outgoing]
        if any(task.desired_state > TaskState.RUNNING and may_still_run(self._view, task) for task in others):
            return True
        if slot.keeper is None or self._has_failed(slot):
            return False
        if slot.outgoing is not None:
            return True
        if _runs(slot.keeper) or not others:
            return False
        return self._was_stopped(others[-1]) or slot.key in self._touched_keys

    def _was_stopped(self, task: Task) -> bool:
        if not is_dead(task.status.state):
            return not is_abandoned(self._view, task)
        return task.status.state is TaskState.SHUTDOWN

    # -- times ---------------------------------------------------------------------------------------------

    @property
    def _started_at(self) -> datetime | None:
        return self._status.started_at if self._status else None

    @property
    def _monitor(self) -> timedelta:
        monitor = self._config.monitor or UPDATE_MONITOR
        return monitor if self._config.delay < monitor else self._config.delay + timedelta(seconds=1)

    def _monitored_until(self) -> datetime | None:
        """When the last task that came up will have lived long enough; None when it has."""
        since = self._up_since() or self._started_at
        return self._open_until(since, self._monitor) if since else None


def is_under_way(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state in UNDER_WAY


def rolled_back(view: ClusterView, service: Service) -> Service:
    """The service with its previous spec. Raises: FailedPrecondition, InvalidArgument."""
    previous = service.previous_spec
    if previous is None:
        raise FailedPrecondition(f"service {service.spec.name} does not have a previous spec")
    return replace(
        service,
        spec=previous,
        spec_version=service.previous_spec_version,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        endpoint=allocate_ports(view, previous, service.id),
    )


def _completed(status: UpdateStatus, failures: str, now: datetime) -> UpdateStatus:
    """Why it was rolled back stays to be read."""
    if status.state is UpdateState.UPDATING:
        message = f"update completed{failures}"
        return replace(status, state=UpdateState.COMPLETED, message=message, completed_at=now)
    reason = f": {status.message}" if status.message.startswith(ROLLED_BACK) else ""
    message = f"rollback completed{failures}{reason}"
    return replace(status, state=UpdateState.ROLLBACK_COMPLETED, message=message, completed_at=now)


def _runs(task: Task) -> bool:
    return task.status.state is TaskState.RUNNING


def _told(view: ClusterView, task: Task) -> str:
    """`web.3 on h2: task: non-zero exit (1)`."""
    node = view.get(Node, task.node_id) if task.node_id else None
    where = f" on {node.description.hostname}" if node is not None else ""
    reason = task.status.err or f"{task.status.state.word}: {task.status.message}".removesuffix(": ")
    return f"{task.service_name}.{task.slot or task.node_id}{where}: {reason}"


def _words(limit: timedelta) -> str:
    """`10m`, `45s`."""
    seconds = int(limit.total_seconds())
    return f"{seconds // 60}m" if seconds and seconds % 60 == 0 else f"{limit.total_seconds():g}s"
