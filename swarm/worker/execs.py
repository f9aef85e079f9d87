"""Commands in this node's containers: run here, for whoever asks on this host or by way of a manager.

Invariant: a command that somebody attends ends with its attendance, whatever ends that: the client's leaving,
a broken stream, a swarmd that stops. One that was started detached runs as long as this swarmd.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Protocol

import grpc.aio

from swarm.base.errors import FailedPrecondition, NotFound, SwarmError
from swarm.base.log import get_logger
from swarm.model.execs import COMMAND_NOT_EXECUTABLE, ExecConfig, ExecInput, ExecOutput
from swarm.model.objects import Task
from swarm.model.task_state import TaskState
from swarm.proto.exec_codec import decode_input, decode_order, encode_failure, encode_output
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.worker.runtime import exec_spec
from swarm.worker.runtime.exec import Chunk

TAKEN_TIMEOUT_S = 10.0

log = get_logger("exec")

_RUNNABLE = (TaskState.STARTING, TaskState.RUNNING)

Call = grpc.aio.StreamStreamCall[pb.ExecOutputMessage, pb.ExecInputMessage]


class ExecProcess(Protocol):
    """A command in a container; `swarm.worker.runtime.exec` has the real one."""

    async def read(self) -> Chunk | None: ...

    async def write(self, data: bytes) -> None: ...

    def close_input(self) -> None: ...

    def resize(self, rows: int, columns: int) -> None: ...

    async def wait(self) -> int: ...

    def kill(self) -> None: ...


class ExecContainers(Protocol):
    def exec(
        self, container_id: str, config: exec_spec.ExecConfig
    ) -> AbstractAsyncContextManager[ExecProcess]: ...


class KnownTasks(Protocol):
    def get(self, task_id: str) -> Task | None: ...


class Execs:
    def __init__(self, containers: ExecContainers, tasks: KnownTasks) -> None:
        self._containers = containers
        self._tasks = tasks
        self._detached: asyncio.TaskGroup | None = None

    async def keep(self) -> None:
        """Keep detached commands running until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._detached = group
            await asyncio.Event().wait()

    @asynccontextmanager
    async def run(
        self, task_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[AsyncIterator[ExecOutput]]:
        """An `ExecRunner` for this node's tasks."""
        self._require_running(task_id)
        if config.detach:
            async with aclosing(self._detach(task_id, config)) as outputs:
                yield outputs
            return
        async with self._containers.exec(task_id, _runtime_config(config)) as process:
            if config.size is not None:
                process.resize(config.size.height, config.size.width)
            feeding = asyncio.ensure_future(_feed(process, inputs))
            try:
                async with aclosing(_outputs(process)) as outputs:
                    yield outputs
            finally:
                feeding.cancel()
                await asyncio.wait({feeding})
                if not feeding.cancelled() and (error := feeding.exception()) is not None:
                    log.warning("exec.input.failed", task_id=task_id, reason=str(error))

    async def serve(self, stub: dispatcher_pb2_grpc.ExecBrokerAsyncStub) -> None:
        """Run what the manager asks for, until the stream breaks."""
        async with asyncio.TaskGroup() as group:
            async for order in stub.ListenExecs(pb.ListenExecsRequest()):
                group.create_task(self._serve(stub, order))

    async def _serve(self, stub: dispatcher_pb2_grpc.ExecBrokerAsyncStub, order: pb.ExecOrder) -> None:
        call: Call = stub.ServeExec()
        inputs = _Inputs(call)
        try:
            await call.write(pb.ExecOutputMessage(id=order.id))
            await self._answer(call, order, inputs)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            log.info("exec.ended", task_id=order.task_id, reason=str(error))
        finally:
            call.cancel()

    async def _answer(self, call: Call, order: pb.ExecOrder, inputs: _Inputs) -> None:
        failure: SwarmError | None = None
        try:
            async with self.run(order.task_id, decode_order(order), inputs.read()) as outputs:
                try:
                    async for output in outputs:
                        await call.write(encode_output(output))
                    await call.done_writing()
                except SwarmError as error:
                    await call.write(encode_failure(error))
                    await call.done_writing()
                # To stop reading is to cancel the call, and with it what is still on its way.
                await inputs.ended()
        except SwarmError as error:
            failure = error
        if failure is not None:
            await call.write(encode_failure(failure))
            await call.done_writing()
            await inputs.ended()

    async def _detach(self, task_id: str, config: ExecConfig) -> AsyncGenerator[ExecOutput, None]:
        if self._detached is None:
            raise FailedPrecondition("this node is not ready to run commands")
        code = self._detached.create_task(self._attend(task_id, config))
        yield ExecOutput(exit_code=await asyncio.shield(code))

    async def _attend(self, task_id: str, config: ExecConfig) -> int:
        """Nobody reads what a detached command writes, but it must be able to write."""
        try:
            async with self._containers.exec(task_id, _runtime_config(config)) as process:
                while await process.read() is not None:
                    continue
                return await process.wait()
        except SwarmError as error:
            log.info("exec.detached.failed", task_id=task_id, reason=str(error))
            return getattr(error, "exit_code", None) or COMMAND_NOT_EXECUTABLE

    def _require_running(self, task_id: str) -> None:
        task = self._tasks.get(task_id)
        if task is None:
            raise NotFound("task", task_id)
        if task.status.state not in _RUNNABLE:
            raise FailedPrecondition(f"container {task_id} is not running")


def _runtime_config(config: ExecConfig) -> exec_spec.ExecConfig:
    return exec_spec.ExecConfig(
        args=config.args,
        env=config.env,
        user=config.user,
        cwd=config.working_dir,
        tty=config.tty,
        stdin=config.stdin and not config.detach,
    )


async def _feed(process: ExecProcess, inputs: AsyncIterator[ExecInput]) -> None:
    """Everything that is told; when nobody is there any more, the end of the command."""
    try:
        async for item in inputs:
            if item.size is not None:
                process.resize(item.size.height, item.size.width)
            elif item.is_stdin_end:
                process.close_input()
            else:
                await process.write(item.stdin)
    finally:
        process.kill()


async def _outputs(process: ExecProcess) -> AsyncGenerator[ExecOutput, None]:
    while (chunk := await process.read()) is not None:
        is_error = chunk.stream == "stderr"
        yield ExecOutput(stderr=chunk.data) if is_error else ExecOutput(stdout=chunk.data)
    yield ExecOutput(exit_code=await process.wait())


class _Inputs:
    """What the manager sends, until it ends the call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._is_read = False
        self._over = asyncio.Event()

    async def read(self) -> AsyncIterator[ExecInput]:
        self._is_read = True
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while isinstance(message := await self._call.read(), pb.ExecInputMessage):
                yield decode_input(message)
        self._over.set()

    async def ended(self) -> None:
        """Wait until the manager has taken everything."""
        async with asyncio.timeout(TAKEN_TIMEOUT_S):
            if not self._is_read:
                async for _ in self.read():
                    continue
            await self._over.wait()
