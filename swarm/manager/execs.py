"""Commands in running tasks, wherever they run: relayed to the node by the manager that has its session.

In: a task, a command, an iterator of inputs. Out: an iterator of outputs. Nothing is queued here: each side
reads from the other only when its own reader is ready, so a slow client slows the command down and costs no
memory. Invariant: when the context is left, the call to the node ends, and with it the command.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc.aio

from swarm.base.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    SwarmError,
    Unavailable,
    from_grpc,
)
from swarm.base.ids import IdSource, NodeID
from swarm.model.execs import ExecConfig, ExecInput, ExecOutput
from swarm.model.objects import Node, Task
from swarm.model.types import NodeState
from swarm.proto.exec_codec import (
    decode_input,
    decode_order,
    decode_output,
    encode_failure,
    encode_input,
    encode_order,
    encode_output,
)
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc, managers_pb2_grpc
from swarm.proto.rpc import Context, caller
from swarm.store.store import Store

ANSWER_TIMEOUT_S = 10.0
"""For a node to take up an order."""
LISTENER_QUEUE = 100

Channel = Callable[[NodeID], AbstractAsyncContextManager[grpc.aio.Channel]]
"""Opens a channel to another manager. Raises: Unavailable."""

_Listener = asyncio.Queue[pb.ExecOrder]


@dataclass(slots=True)
class _Session:
    """One command between its order and its end."""

    node: Node
    inputs: AsyncIterator[ExecInput]
    listener: _Listener
    outputs: asyncio.Future[AsyncIterator[pb.ExecOutputMessage]]
    """Set once the node has taken the command up."""
    scope: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    is_over: bool = False

    def end(self) -> None:
        """End the node's call."""
        self.is_over = True
        is_taken = self.outputs.done() and not self.outputs.cancelled() and not self.outputs.exception()
        if is_taken and not self.scope.expired():
            with suppress(RuntimeError):  # it has ended by itself
                self.scope.reschedule(asyncio.get_running_loop().time())
        self.outputs.cancel()


class ExecBroker(dispatcher_pb2_grpc.ExecBrokerServicer):
    def __init__(self, store: Store, new_id: IdSource, channel: Channel) -> None:
        self._store = store
        self._new_id = new_id
        self._channel = channel
        self._listeners: dict[NodeID, _Listener] = {}
        self._sessions: dict[str, _Session] = {}

    @asynccontextmanager
    async def run(
        self, task_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[AsyncIterator[ExecOutput]]:
        """An `ExecRunner` for every task of the cluster."""
        node = self._node_of(task_id)
        is_here = node.id in self._listeners
        runner = (
            self.run_local(task_id, config, inputs) if is_here else self._relay(node, task_id, config, inputs)
        )
        async with runner as outputs:
            yield outputs

    @asynccontextmanager
    async def run_local(
        self, task_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[AsyncIterator[ExecOutput]]:
        """Like `run`, on a node whose session is here: what another manager asks for."""
        node = self._node_of(task_id)
        order_id, listener = self._new_id(), self._listener_of(node)
        session = _Session(node, inputs, listener, asyncio.get_running_loop().create_future())
        self._sessions[order_id] = session
        try:
            listener.put_nowait(encode_order(order_id, task_id, config))
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    found = await session.outputs
            except TimeoutError:
                raise Unavailable(f"node {_name(node)} did not answer") from None
            async with aclosing(_outputs(found, node, config)) as outputs:
                yield outputs
        finally:
            del self._sessions[order_id]
            session.end()

    async def ListenExecs(
        self, request: pb.ListenExecsRequest, context: Context
    ) -> AsyncIterator[pb.ExecOrder]:
        node_id = caller().node_id
        listener: _Listener = asyncio.Queue(LISTENER_QUEUE)
        self._listeners[node_id] = listener
        try:
            while True:
                yield await listener.get()
        finally:
            if self._listeners.get(node_id) is listener:
                del self._listeners[node_id]
            self._give_up(listener)

    async def ServeExec(
        self, request: AsyncIterator[pb.ExecOutputMessage], context: Context
    ) -> AsyncIterator[pb.ExecInputMessage]:
        first = await anext(request, None)
        if first is None:
            return  # the node has gone before its first word
        session = self._sessions.get(first.id)
        if session is None or session.outputs.done():
            raise NotFound("exec", first.id)
        if session.node.id != caller().node_id:
            raise PermissionDenied("cannot run a command of a task not assigned this node")
        try:
            async with session.scope:
                session.outputs.set_result(request)
                async for item in session.inputs:
                    yield encode_input(item)
                if not session.is_over:
                    return  # whoever asked has gone: the node kills the command
        except TimeoutError:
            return

    async def serve_manager(
        self, request: AsyncIterator[pb.ExecInputMessage]
    ) -> AsyncIterator[pb.ExecOutputMessage]:
        """What another manager, which has the client, wants run on a node whose session is here."""
        first = await anext(request, None)
        if first is None:
            return
        order = first.start
        try:
            async with self.run_local(order.task_id, decode_order(order), _decoded(request)) as outputs:
                async for output in outputs:
                    yield encode_output(output)
        except SwarmError as error:
            yield encode_failure(error)

    @asynccontextmanager
    async def _relay(
        self, node: Node, task_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[AsyncIterator[ExecOutput]]:
        async with self._channel(node.status.manager_id) as channel:
            stub: managers_pb2_grpc.ManagersAsyncStub = managers_pb2_grpc.ManagersStub(channel)
            order = encode_order("", task_id, config)
            call = stub.RunExec(_started(order, inputs))
            try:
                async with aclosing(_outputs(call, node, config)) as outputs:
                    yield outputs
            finally:
                call.cancel()

    def _listener_of(self, node: Node) -> _Listener:
        listener = self._listeners.get(node.id)
        if listener is None or listener.full():
            raise Unavailable(f"node {_name(node)} is not available")
        return listener

    def _give_up(self, listener: _Listener) -> None:
        """What it was to be told, or was told and has not taken up: nobody will."""
        for session in self._sessions.values():
            if session.listener is listener and not session.outputs.done():
                session.outputs.set_exception(Unavailable(_lost(session.node)))

    def _node_of(self, task_id: str) -> Node:
        task = self._store.view.get(Task, task_id)
        if task is None:
            raise NotFound("task", task_id)
        node = self._store.view.get(Node, task.node_id) if task.node_id else None
        if node is None:
            raise FailedPrecondition(f"task {task_id} is not running: it has no node")
        if node.status.state is not NodeState.READY:
            raise Unavailable(f"node {_name(node)} is {node.status.state}")
        return node


def _name(node: Node) -> str:
    return node.description.hostname or node.id


async def _outputs(
    messages: AsyncIterable[pb.ExecOutputMessage], node: Node, config: ExecConfig
) -> AsyncGenerator[ExecOutput, None]:
    """Until the exit code. Raises: what the node says; Unavailable when it is lost before."""
    try:
        async for message in messages:
            output = decode_output(message)
            yield output
            if output.exit_code is not None:
                return
    except grpc.aio.AioRpcError as error:
        raise from_grpc(error.code().value[0], error.details() or error.code().name) from None
    except (grpc.aio.BaseError, grpc.aio.UsageError, asyncio.InvalidStateError):
        raise Unavailable(_lost(node)) from None
    if not config.detach:
        raise Unavailable(_lost(node))


def _lost(node: Node) -> str:
    return f"node {_name(node)} was lost while the command ran"


async def _decoded(request: AsyncIterator[pb.ExecInputMessage]) -> AsyncIterator[ExecInput]:
    async for message in request:
        yield decode_input(message)


async def _started(
    order: pb.ExecOrder, inputs: AsyncIterator[ExecInput]
) -> AsyncIterator[pb.ExecInputMessage]:
    yield pb.ExecInputMessage(start=order)
    async for item in inputs:
        yield encode_input(item)
