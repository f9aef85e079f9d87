"""Commands in this node's containers: run here, for whoever asks on this host or by way of a manager.

Invariant: a command that somebody attends ends with its attendance, whatever ends that: the client's leaving,
a broken stream, a swarmd that stops. One that was started detached is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Protocol

import grpc.aio

from swarm.base.errors import FailedPrecondition, NotFound, SwarmError
from swarm.base.log import get_logger
from swarm.model.execs import ExecConfig, ExecInput, ExecOutput, TerminalSize
from swarm.model.objects import Task
from swarm.model.task_state import TaskState
from swarm.proto.exec_codec import decode_input, decode_order, encode_failure, encode_output
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc

TAKEN_TIMEOUT_S = 10.0

log = get_logger("exec")

_RUNNABLE = (TaskState.STARTING, TaskState.RUNNING)

Call = grpc.aio.StreamStreamCall[pb.ExecOutputMessage, pb.ExecInputMessage]


class ExecProcess(Protocol):
    """A command in a container."""

    async def write(self, piece: bytes) -> None:
        """To its input, when it takes it. Raises: OSError when it reads no more."""
        ...

    def close_stdin(self) -> None: ...

    def resize(self, size: TerminalSize) -> None: ...

    async def read(self) -> ExecOutput | None:
        """The next piece of output; None when there is no more."""
        ...

    async def wait(self) -> int: ...

    async def close(self) -> None:
        """Kill it if it runs, and let go of all it has here."""
        ...


class ExecContainers(Protocol):
    async def exec(self, container_id: str, config: ExecConfig) -> ExecProcess:
        """Raises: Fatal with an exit code when the command cannot be executed."""
        ...


class KnownTasks(Protocol):
    def get(self, task_id: str) -> Task | None: ...


class Execs:
    def __init__(self, containers: ExecContainers, tasks: KnownTasks) -> None:
        self._containers = containers
        self._tasks = tasks

    @asynccontextmanager
    async def run(
        self, task_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[AsyncIterator[ExecOutput]]:
        """An `ExecRunner` for this node's tasks."""
        self._require_running(task_id)
        process = await self._containers.exec(task_id, config)
        if config.detach:
            yield _nothing()
            return
        feeding = asyncio.ensure_future(_feed(process, inputs))
        try:
            async with aclosing(_outputs(process)) as outputs:
                yield outputs
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})
            await process.close()
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
            try:
                async with self.run(order.task_id, decode_order(order), inputs.read()) as outputs:
                    async for output in outputs:
                        await call.write(encode_output(output))
                    await call.done_writing()
                    # To stop reading is to cancel the call, and with it what is still on its way.
                    await inputs.ended(order.detach)
            except SwarmError as error:
                await call.write(encode_failure(error))
                await call.done_writing()
                await inputs.ended(is_unread=True)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            log.info("exec.ended", task_id=order.task_id, reason=str(error))
        finally:
            call.cancel()

    def _require_running(self, task_id: str) -> None:
        task = self._tasks.get(task_id)
        if task is None:
            raise NotFound("task", task_id)
        if task.status.state not in _RUNNABLE:
            raise FailedPrecondition(f"container {task_id} is not running")


async def _feed(process: ExecProcess, inputs: AsyncIterator[ExecInput]) -> None:
    """Everything that is told; when nobody is there any more, the end of the command."""
    takes_input = True
    try:
        async for item in inputs:
            if item.size is not None:
                process.resize(item.size)
            elif item.is_stdin_end:
                process.close_stdin()
            elif takes_input:
                try:
                    await process.write(item.stdin)
                except OSError:
                    takes_input = False  # it has closed its input: what still comes is for nobody
    finally:
        await process.close()


async def _outputs(process: ExecProcess) -> AsyncGenerator[ExecOutput, None]:
    while (output := await process.read()) is not None:
        yield output
    yield ExecOutput(exit_code=await process.wait())


async def _nothing() -> AsyncGenerator[ExecOutput, None]:
    return
    yield


class _Inputs:
    """What the manager sends, until it ends the call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._over = asyncio.Event()

    async def read(self) -> AsyncIterator[ExecInput]:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while isinstance(message := await self._call.read(), pb.ExecInputMessage):
                yield decode_input(message)
        self._over.set()

    async def ended(self, is_unread: bool) -> None:
        """Wait until the manager has taken everything; `is_unread`: nobody else reads meanwhile."""
        async with asyncio.timeout(TAKEN_TIMEOUT_S):
            if is_unread:
                async for _ in self.read():
                    continue
            await self._over.wait()
