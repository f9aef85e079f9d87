"""The life of one task on its node, as pure functions: what to do next, and what a result means.

`next_step` looks at the reported state and the desired one; `after` turns the outcome of a step into the next
status. One step at a time, each step's work may be repeated after a crash, and a state never goes back.
Source: SwarmKit agent/exec/controller.go (Do).

    ASSIGNED ─ACCEPT→ ACCEPTED → PREPARING ─PREPARE→ READY ─(desired RUNNING)→ STARTING ─START→ RUNNING
    RUNNING ─WAIT→ COMPLETE or FAILED; unhealthy, STARTING or RUNNING: ─EVICT→ FAILED
    desired SHUTDOWN or REMOVE, at any of them: ─STOP→ SHUTDOWN
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from swarm.model.objects import ContainerStatus, TaskStatus
from swarm.model.task_state import TaskState
from swarm.model.types import PortConfig

RETRY_FIRST = timedelta(milliseconds=200)
RETRY_LIMIT = timedelta(seconds=10)

REPEATABLE = frozenset({TaskState.ACCEPTED, TaskState.PREPARING, TaskState.READY})
"""States that need not survive a restart: the steps to them are taken again, to the same end."""


class Step(StrEnum):
    ACCEPT = "accept"
    ANNOUNCE_PREPARING = "announce preparing"
    PREPARE = "prepare"
    ANNOUNCE_STARTING = "announce starting"
    START = "start"
    WAIT = "wait"
    STOP = "stop"
    EVICT = "stop what is unhealthy"
    REST = "rest"
    """Nothing to do until the desired state changes."""
    DONE = "done"


_ANNOUNCED = {
    Step.ACCEPT: (TaskState.ACCEPTED, "accepted"),
    Step.ANNOUNCE_PREPARING: (TaskState.PREPARING, "preparing"),
    Step.ANNOUNCE_STARTING: (TaskState.STARTING, "starting"),
}
"""Steps without work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step's work ended."""

    error: str = ""
    """Why it failed for good; empty when it went well."""
    exit_code: int | None = None
    """The container's, where it is known."""
    is_unhealthy: bool = False
    """The container runs, but is not fit to: it is to be stopped."""
    pid: int = 0
    ports: tuple[PortConfig, ...] = ()
    """Host-mode ports as bound."""


def next_step(state: TaskState, desired: TaskState, *, is_unhealthy: bool = False) -> Step:
    if state > TaskState.RUNNING:
        return Step.DONE
    if desired >= TaskState.SHUTDOWN:
        return Step.STOP
    if is_unhealthy:
        return Step.EVICT
    match state:
        case TaskState.ASSIGNED:
            return Step.ACCEPT
        case TaskState.ACCEPTED:
            return Step.ANNOUNCE_PREPARING
        case TaskState.PREPARING:
            return Step.PREPARE
        case TaskState.READY:
            return Step.REST if desired < TaskState.RUNNING else Step.ANNOUNCE_STARTING
        case TaskState.STARTING:
            return Step.START
        case TaskState.RUNNING:
            return Step.WAIT
        case _:
            return Step.REST


def after(step: Step, status: TaskStatus, outcome: Outcome, now: datetime) -> TaskStatus:
    """The status that follows `status` once `step` has ended with `outcome`."""
    if step in _ANNOUNCED:
        state, message = _ANNOUNCED[step]
        return _move(status, state, message, now)
    if outcome.is_unhealthy:
        unhealthy = _move(status, status.state, "unhealthy", now)
        return replace(unhealthy, err=outcome.error, is_unhealthy=True)
    match step:
        case Step.PREPARE if outcome.error:
            return _fail(status, TaskState.REJECTED, outcome, now)
        case Step.PREPARE:
            return replace(_move(status, TaskState.READY, "prepared", now), ports=outcome.ports)
        case Step.START:
            return _started(status, outcome, now)
        case Step.WAIT:
            return _ended(status, outcome, now)
        case Step.STOP:
            return _stopped(status, outcome, now)
        case Step.EVICT:
            return _evicted(status, outcome, now)
        case _:
            return status


def resumed(status: TaskStatus, *, is_known: bool, is_alive: bool, now: datetime) -> TaskStatus:
    """The status with which a task goes on after swarmd, or the host, has started again.

    A container that is there (`is_known`) is adopted: alive or ended, `WAIT` finds out. One that was being
    made is made anew. One that had been made and is gone went down with the host, and is not made again.
    """
    if status.state > TaskState.RUNNING or status.state < TaskState.READY:
        return status
    if is_known:
        started = status.state >= TaskState.STARTING
        return replace(status, state=TaskState.RUNNING) if started and not is_alive else status
    lost = Outcome(error="the host went down while the task was on it")
    return _fail(status, TaskState.FAILED, lost, now)


def retry_delay(attempt: int) -> timedelta:
    """How long to wait before a step that failed for now is tried again; `attempt` counts from 0."""
    return min(RETRY_FIRST * (1 << min(attempt, 10)), RETRY_LIMIT)


def _started(status: TaskStatus, outcome: Outcome, now: datetime) -> TaskStatus:
    if outcome.error:
        return _fail(status, TaskState.FAILED, outcome, now)
    if outcome.exit_code is not None:  # before it was healthy
        return _ended(status, outcome, now)
    started = _move(status, TaskState.RUNNING, "started", now)
    return replace(started, container=_container(status, pid=outcome.pid))


def _stopped(status: TaskStatus, outcome: Outcome, now: datetime) -> TaskStatus:
    stopped = _move(status, TaskState.SHUTDOWN, "shutdown", now)
    if outcome.exit_code is None:
        return stopped
    return replace(stopped, container=_container(status, exit_code=outcome.exit_code))


def _evicted(status: TaskStatus, outcome: Outcome, now: datetime) -> TaskStatus:
    failed = replace(_move(status, TaskState.FAILED, "failed", now), err=status.err)
    if outcome.exit_code is None:
        return failed
    return replace(failed, container=_container(status, exit_code=outcome.exit_code))


def _ended(status: TaskStatus, outcome: Outcome, now: datetime) -> TaskStatus:
    code = outcome.exit_code or 0
    container = _container(status, exit_code=code)
    if not outcome.error and code == 0:
        return replace(_move(status, TaskState.COMPLETE, "finished", now), container=container)
    error = outcome.error or f"task: non-zero exit ({code})"
    return replace(_move(status, TaskState.FAILED, "failed", now), err=error, container=container)


def _fail(status: TaskStatus, state: TaskState, outcome: Outcome, now: datetime) -> TaskStatus:
    message = "preparing" if state is TaskState.REJECTED else "starting"
    failed = replace(_move(status, state, message, now), err=outcome.error)
    if outcome.exit_code is None:
        return failed
    return replace(failed, container=_container(status, exit_code=outcome.exit_code))


def _move(status: TaskStatus, state: TaskState, message: str, now: datetime) -> TaskStatus:
    return replace(status, state=state, message=message, err="", is_unhealthy=False, timestamp=now)


def _container(status: TaskStatus, *, pid: int = 0, exit_code: int = 0) -> ContainerStatus:
    known = status.container or ContainerStatus()
    return replace(known, pid=pid or known.pid, exit_code=exit_code)
