"""The fence of a host: its exclusive tasks run only while a manager has given its word lately.

In: tasks to arm, and each word (`renew`). Out: files for the watchdog, a small process that kills what is
armed when the deadline is over, also when this swarmd is stopped or dead.
Invariant: an exclusive task that has once outlived a word is never made or started again; it is armed when it
is assigned, under a word that holds, or not at all. No new word counts before what an old one left is dead.
Why the times fit: `swarm.model.exclusive`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from swarm.base.clock import Clock
from swarm.base.errors import Fatal, Temporary
from swarm.base.log import get_logger
from swarm.model.exclusive import FENCE_AFTER_S, is_exclusive
from swarm.model.objects import Task
from swarm.model.task_state import TaskState
from swarm.worker import watchdog
from swarm.worker.runtime.cgroups import PARENT
from swarm.worker.runtime.host import CGROUP_ROOT

LOOK_EVERY_S = 1.0
START_TIMEOUT_S = 10.0
FENCED = f"stopped by this host's fence: no manager gave its word for {FENCE_AFTER_S:g} s"

log = get_logger("fence")


class Fence:
    def __init__(self, run_dir: Path, clock: Clock, cgroups: Path = CGROUP_ROOT) -> None:
        self._directory = run_dir / "fence"
        self._clock = clock
        self._cgroups = cgroups
        self._lock = asyncio.Lock()
        (self._directory / "tasks").mkdir(mode=0o700, parents=True, exist_ok=True)
        self._deadline = watchdog.read_deadline(self._directory)

    @property
    def is_used(self) -> bool:
        """Whether anything is armed."""
        return bool(watchdog.armed(self._directory))

    def is_armed(self, task_id: str) -> bool:
        return self._file(task_id).exists()

    async def run(self) -> None:
        """Keep a watchdog while anything is armed, until cancelled."""
        while True:
            try:
                await self._ensure_watchdog()
            except (Temporary, OSError) as error:
                log.error("fence.unwatched", reason=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    def arm(self, task: Task) -> None:
        """A task that this host has just been assigned. Without a word that holds it is never armed."""
        is_wanted = task.desired_state <= TaskState.RUNNING and task.status.state <= TaskState.RUNNING
        if not is_exclusive(task) or not is_wanted or not self._holds():
            return
        try:
            self._write_deadline(self._deadline)
            self._file(task.id).touch(mode=0o600)
        except OSError as error:
            log.error("fence.unarmed", task_id=task.id, reason=str(error))

    async def check(self, task: Task) -> None:
        """Before an exclusive task's container is made or started; others pass.

        Raises:
            Fatal: it was fenced, or nobody's word holds.
            Temporary: there is no watchdog.
        """
        if not is_exclusive(task):
            return
        await self._ensure_watchdog()
        if not self.is_armed(task.id) or not self._holds():
            raise Fatal(FENCED)

    def has_struck(self, task: Task) -> bool:
        """Whether the task's container ended because nobody gave its word."""
        return is_exclusive(task) and not self.is_armed(task.id)

    def disarm(self, task_id: str) -> None:
        """The task's container has ended."""
        self._file(task_id).unlink(missing_ok=True)

    async def renew(self, asked_at: float) -> None:
        """A manager gave its word in answer to what was asked at `asked_at`, by this host's clock."""
        async with self._lock:
            if self.is_used and not self._holds():
                log.warning("fence.strikes", tasks=watchdog.armed(self._directory))
                await asyncio.to_thread(watchdog.strike, self._directory, self._cgroups, PARENT)
                if self.is_used:
                    return
            deadline = max(self._deadline, asked_at + FENCE_AFTER_S)
            try:
                if self.is_used:
                    self._write_deadline(deadline)
            except OSError as error:
                log.error("fence.unwritten", reason=str(error))
            else:
                self._deadline = deadline

    def _holds(self) -> bool:
        return self._clock.monotonic() < self._deadline

    def _file(self, task_id: str) -> Path:
        return self._directory / "tasks" / task_id

    def _write_deadline(self, deadline: float) -> None:
        temporary = self._directory / ".deadline"
        temporary.write_text(repr(deadline))
        temporary.replace(self._directory / "deadline")

    async def _ensure_watchdog(self) -> None:
        if not self.is_used:
            return
        lock = watchdog.take_watch(self._directory)
        if lock is None:
            return
        os.close(lock)
        program = (sys.executable, "-I", "-S", watchdog.__file__)
        process = await asyncio.create_subprocess_exec(
            *program,
            str(self._directory),
            str(self._cgroups),
            PARENT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise Temporary("the fence's watchdog does not start: is the host overloaded?") from None
        log.info("fence.watched")
