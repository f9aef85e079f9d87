"""The work behind tasks, as a test wants it: each step waits, fails or goes well when it is told to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from swarm.model.objects import Task
from swarm.worker.task_machine import Outcome


class FakeController:
    """Every step succeeds at once, but for what `errors` holds for it, and for those in `held`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, list[BaseException]] = defaultdict(list)
        self.held: dict[str, asyncio.Event] = {"wait": asyncio.Event()}
        self.began: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.cancelled: list[str] = []
        self.on_cancel: dict[str, Callable[[], None]] = {}
        self.exit_code = 0
        self.unhealthy: dict[str, str] = {}
        """The probes' verdict in a step, if it is bad."""

    async def prepare(self, task: Task) -> Outcome:
        return await self._do("prepare", Outcome())

    async def start(self, task: Task) -> Outcome:
        return await self._do("start", Outcome(pid=7))

    async def wait(self, task: Task) -> Outcome:
        return await self._do("wait", Outcome(exit_code=self.exit_code))

    async def stop(self, task: Task, *, was_running: bool) -> Outcome:
        return await self._do("stop", Outcome(exit_code=143 if was_running else None))

    async def remove(self, task: Task) -> None:
        await self._do("remove", Outcome())

    async def release(self, task: Task) -> None:
        await self._do("release", Outcome())

    async def _do(self, step: str, outcome: Outcome) -> Outcome:
        self.calls.append(step)
        self.began[step].set()
        try:
            if step in self.held:
                await self.held[step].wait()
        except asyncio.CancelledError:
            self.cancelled.append(step)
            self.on_cancel.get(step, lambda: None)()
            raise
        if step in self.unhealthy:
            return Outcome(error=self.unhealthy[step], is_unhealthy=True)
        if self.errors[step]:
            raise self.errors[step].pop(0)
        return outcome
