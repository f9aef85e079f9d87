"""All tasks of this node: follows the assignments, keeps the journal, adopts after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from swarm.base.clock import Clock
from swarm.base.log import get_logger
from swarm.model.objects import Task
from swarm.model.task_state import TaskState
from swarm.worker.controller import Controller
from swarm.worker.images.store import ImageStore
from swarm.worker.journal import Journal
from swarm.worker.runtime.containers import Containers
from swarm.worker.task_machine import REPEATABLE, resumed
from swarm.worker.task_runner import TaskRunner

log = get_logger("tasks")


class Tasks:
    def __init__(
        self, *, journal: Journal, controller: Controller, clock: Clock, report: Callable[[Task], None]
    ) -> None:
        self._journal = journal
        self._controller = controller
        self._clock = clock
        self._report = report
        self._runners: dict[str, TaskRunner] = {}
        self._group: asyncio.TaskGroup | None = None
        self._adopted = asyncio.Event()
        self._leaving = False
        self._empty = asyncio.Event()
        self._moved = asyncio.Event()

    def list(self) -> tuple[Task, ...]:
        """Every task whose container may still be here."""
        return tuple(runner.task for runner in self._runners.values())

    def get(self, task_id: str) -> Task | None:
        runner = self._runners.get(task_id)
        return runner.task if runner else None

    async def made(self, task_id: str) -> None:
        """Wait until the task's container has been made, or never will be."""
        while (task := self.get(task_id)) is not None and task.status.state < TaskState.READY:
            moved = self._moved
            await moved.wait()

    async def adopted(self) -> None:
        """Wait until an earlier swarmd's tasks are known again; before that nothing may be assigned."""
        await self._adopted.wait()

    async def run(self, containers: Containers, images: ImageStore) -> None:
        """Adopt what an earlier swarmd left, then run tasks until cancelled (containers go on)."""
        known = self._journal.load()
        found = {a.id: a for a in await containers.adopt(known)}
        for container_id in set(images.retained()) - set(known):
            images.release(container_id)
        async with asyncio.TaskGroup() as group:
            self._group = group
            for task in known.values():
                adopted = found.get(task.id)
                alive = adopted is not None and adopted.exit_status is None
                status = resumed(
                    task.status, is_known=adopted is not None, is_alive=alive, now=self._clock.now()
                )
                self._start(replace(task, status=status))
            log.info("tasks.adopted", known=len(known), containers=len(found))
            self._adopted.set()
            await asyncio.Event().wait()

    def assign(self, task: Task) -> None:
        """The manager has given this node a task, or changed what it wants of one."""
        runner = self._runners.get(task.id)
        if runner is not None:
            runner.set_desired(task.desired_state)
            runner.set_login(task.spec.container_spec.pull_options)
            self._journal.save(runner.task)
            return
        if self._leaving:
            return
        status = resumed(task.status, is_known=False, is_alive=False, now=self._clock.now())
        self._start(replace(task, status=status))

    def withdraw(self, task_ids: Iterable[str]) -> None:
        """The manager has no such tasks any more."""
        for task_id in task_ids:
            runner = self._runners.get(task_id)
            if runner is not None:
                runner.remove()

    def keep_only(self, task_ids: frozenset[str]) -> None:
        """After a complete assignment: everything else goes."""
        self.withdraw([task_id for task_id in self._runners if task_id not in task_ids])

    async def remove_all(self) -> None:
        """Stop and remove every task, and take no new ones; returns when nothing is left."""
        self._leaving = True
        self.keep_only(frozenset())
        while self._runners:
            self._empty.clear()
            await self._empty.wait()

    def _start(self, task: Task) -> None:
        assert self._group is not None, "tasks are assigned while run() runs"
        runner = TaskRunner(task, self._controller, self._clock, self._changed)
        self._runners[task.id] = runner
        self._journal.save(task)
        self._tell(task)
        self._group.create_task(self._run(runner), name=f"task {task.name}")

    async def _run(self, runner: TaskRunner) -> None:
        await runner.run()
        task_id = runner.task.id
        self._journal.forget(task_id)
        del self._runners[task_id]
        if not self._runners:
            self._empty.set()

    def _changed(self, task: Task) -> None:
        if task.status.state not in REPEATABLE:  # a file replaced costs milliseconds, three times a task
            self._journal.save(task)
        self._tell(task)

    def _tell(self, task: Task) -> None:
        self._report(task)
        self._moved.set()
        self._moved = asyncio.Event()
