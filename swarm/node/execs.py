"""Commands that this host's API has been asked for: run here when the container is here, else by a manager.

They are kept in memory and few: what has ended, or was never started, goes when others come.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from swarm.api.backend import ExecRequest, ExecState
from swarm.base.errors import FailedPrecondition, Fatal, NotFound, SwarmError
from swarm.base.log import get_logger
from swarm.model.execs import COMMAND_NOT_EXECUTABLE, ExecConfig, ExecInput, ExecOutput, ExecRunner

KEPT = 500

log = get_logger("exec")


class HostExecs:
    def __init__(self, runner_for: Callable[[str], ExecRunner]) -> None:
        """`runner_for` a task: who can run a command in it. Raises: NotFound, NotManager."""
        self._runner_for = runner_for
        self._states: dict[str, ExecState] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Attend to detached commands until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def create(self, request: ExecRequest) -> str:
        self._runner_for(request.task_id)
        self._make_room()
        exec_id = secrets.token_hex(32)
        self._states[exec_id] = ExecState(id=exec_id, request=request)
        return exec_id

    def get(self, exec_id: str) -> ExecState:
        found = self._states.get(exec_id)
        if found is None:
            error = NotFound("exec", exec_id)
            error.args = (f"No such exec instance: {exec_id}",)
            raise error
        return found

    @asynccontextmanager
    async def start(
        self, exec_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[AsyncIterator[ExecOutput]]:
        state = self._begin(exec_id)
        code: int | None = None
        try:
            async with self._runner_for(state.request.task_id)(
                state.request.task_id, config, inputs
            ) as outputs:
                yield self._watched(exec_id, outputs)
        except SwarmError as error:
            code = error.exit_code if isinstance(error, Fatal) else None
            code = COMMAND_NOT_EXECUTABLE if code is None else code
            raise
        finally:
            self._end(exec_id, code)

    async def start_detached(self, exec_id: str) -> None:
        if self._group is None:
            raise FailedPrecondition("this node is not ready to run commands")
        state = self.get(exec_id)
        if state.is_started:
            raise FailedPrecondition(f"Error: Exec command {exec_id} has already run")
        begun = asyncio.get_running_loop().create_future()
        self._group.create_task(self._attend(state, begun))
        await begun

    async def _attend(self, state: ExecState, begun: asyncio.Future[None]) -> None:
        config = replace(state.request.config, detach=True, stdin=False, size=None)
        try:
            async with self.start(state.id, config, _nothing()) as outputs:
                if not begun.done():  # else whoever waited for it has gone
                    begun.set_result(None)
                async for _ in outputs:
                    continue
        except SwarmError as error:
            if begun.done():
                log.info("exec.detached.lost", exec_id=state.id, reason=str(error))
            else:
                begun.set_exception(error)

    async def _watched(self, exec_id: str, outputs: AsyncIterator[ExecOutput]) -> AsyncIterator[ExecOutput]:
        async for output in outputs:
            if output.exit_code is not None:
                self._end(exec_id, output.exit_code)
            yield output

    def _begin(self, exec_id: str) -> ExecState:
        state = self.get(exec_id)
        if state.is_started:
            raise FailedPrecondition(f"Error: Exec command {exec_id} has already run")
        self._states[exec_id] = state = replace(state, is_started=True, is_running=True)
        return state

    def _end(self, exec_id: str, code: int | None) -> None:
        state = self._states.get(exec_id)
        if state is not None and state.is_running:
            self._states[exec_id] = replace(state, is_running=False, exit_code=code)

    def _make_room(self) -> None:
        idle = [exec_id for exec_id, state in self._states.items() if not state.is_running]
        for exec_id in idle[: max(0, len(self._states) - KEPT + 1)]:
            del self._states[exec_id]


async def _nothing() -> AsyncIterator[ExecInput]:
    """Nobody types; the command is not attended to either."""
    await asyncio.Event().wait()
    yield ExecInput()
