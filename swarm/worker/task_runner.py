"""Runs one task: asks the machine for the next step, has the controller do it, reports what came of it.

The desired state may change at any time: work towards running is then cancelled where it stands (every step
may be repeated or undone), while stopping is always carried through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from swarm.base.clock import Clock
from swarm.base.errors import Fatal, InvalidArgument, SwarmError
from swarm.base.log import get_logger
from swarm.model.container import PullOptions
from swarm.model.objects import ContainerStatus, Task, TaskStatus
from swarm.model.task_state import TaskState
from swarm.worker.controller import Controller
from swarm.worker.task_machine import Outcome, Step, after, next_step, retry_delay

log = get_logger("task")

T = TypeVar("T")
Report = Callable[[Task], None]


class TaskRunner:
    """`report(task)` is called with the task whenever its status has changed."""

    def __init__(self, task: Task, controller: Controller, clock: Clock, report: Report) -> None:
        self._task = task
        self._controller = controller
        self._clock = clock
        self._report = report
        self._removed = False
        self._changed = asyncio.Event()

    @property
    def task(self) -> Task:
        return self._task

    def set_desired(self, desired: TaskState) -> None:
        """What the manager wants now; it only rises."""
        if desired > self._task.desired_state:
            self._task = replace(self._task, desired_state=desired)
            self._changed.set()

    def set_login(self, options: PullOptions | None) -> None:
        """What to show to the registry: a swarmd that was restarted does not know it any more."""
        spec = self._task.spec
        container = replace(spec.container_spec, pull_options=options)
        self._task = replace(self._task, spec=replace(spec, container_spec=container))

    def remove(self) -> None:
        """The manager has no such task any more: stop it and take everything away."""
        self._removed = True
        self.set_desired(TaskState.REMOVE)
        self._changed.set()

    async def run(self) -> None:
        """Until the task has ended and been removed."""
        while True:
            status = self._task.status
            step = next_step(status.state, self._task.desired_state, is_unhealthy=status.is_unhealthy)
            if step is Step.DONE:
                break
            await self._take(step)
        await self._retried(lambda: self._controller.release(self._task))
        while not self._removed:
            await self._next_change()
        await self._retried(lambda: self._controller.remove(self._task))

    async def _take(self, step: Step) -> None:
        match step:
            case Step.REST:
                await self._next_change()
                return
            case Step.STOP | Step.EVICT:
                outcome = await self._stop()
            case Step.PREPARE | Step.START | Step.WAIT:
                work = {
                    Step.PREPARE: self._controller.prepare,
                    Step.START: self._controller.start,
                    Step.WAIT: self._controller.wait,
                }[step]
                found = await self._unless_stopped(self._attempts(lambda: work(self._task)))
                if found is None:
                    return
                outcome = found
            case _:
                outcome = Outcome()
        self._set_status(after(step, self._task.status, outcome, self._clock.now()))

    async def _stop(self) -> Outcome:
        was_running = self._task.status.state is TaskState.RUNNING
        return await self._retried(lambda: self._controller.stop(self._task, was_running=was_running))

    async def _attempts(self, work: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Try until it works or has failed for good; the reason for waiting is shown meanwhile."""
        attempt = 0
        while True:
            try:
                return await work()
            except Fatal as error:
                return Outcome(error=str(error), exit_code=error.exit_code)
            except InvalidArgument as error:  # a broken image, a value that cannot be: no better next time
                return Outcome(error=str(error))
            except SwarmError as error:
                if str(error) != self._task.status.err:
                    self._set_status(replace(self._task.status, err=str(error)))
            except OSError as error:
                return Outcome(error=str(error))
            except Exception as error:  # one task's trouble must not end the other tasks' swarmd
                log.exception("task.step.broken", task_id=self._task.id)
                return Outcome(error=f"internal error: {error!r}; see swarmd's log")
            _stop_if_cancelled()
            await asyncio.sleep(retry_delay(attempt).total_seconds())
            attempt += 1

    async def _unless_stopped(self, work: Coroutine[Any, Any, Outcome]) -> Outcome | None:
        """The work's outcome, or None when the task is to stop: the work is then cancelled."""
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work)
            stopping = group.create_task(self._until_stopped())
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not working.done():
                working.cancel()
        return None if working.cancelled() else working.result()

    async def _until_stopped(self) -> None:
        while self._task.desired_state < TaskState.SHUTDOWN:
            await self._next_change()

    async def _next_change(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def _retried(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        attempt = 0
        while True:
            try:
                return await work()
            except (SwarmError, OSError) as error:
                log.warning("task.cleanup.failed", task_id=self._task.id, reason=str(error))
            except Exception:
                log.exception("task.cleanup.broken", task_id=self._task.id)
            _stop_if_cancelled()
            await asyncio.sleep(retry_delay(attempt).total_seconds())
            attempt += 1

    def _set_status(self, status: TaskStatus) -> None:
        if status.state >= TaskState.READY and status.container is None:
            status = replace(status, container=ContainerStatus(container_id=self._task.id))
        elif status.container is not None and not status.container.container_id:
            status = replace(status, container=replace(status.container, container_id=self._task.id))
        if status.state != self._task.status.state:
            log.info(
                "task.state",
                task_id=self._task.id,
                name=self._task.name,
                state=status.state.word,
                err=status.err,
            )
        self._task = replace(self._task, status=status)
        self._report(self._task)


def _stop_if_cancelled() -> None:
    """A step that fails while it is being cancelled hides the cancellation behind its own error."""
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError
