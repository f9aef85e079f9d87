"""Logs of tasks, wherever they run: a reader subscribes here, the nodes concerned publish into its queue.

The queue is bounded; a slow reader slows the agents' streams down (they read from files) and costs no memory.
A node that cannot be reached stops nobody else's lines (moby#37336): it is named at the end. Who follows gets
the lines of a node whose session broke or moved from where they stopped, as soon as it is back.
Source: SwarmKit manager/logbroker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from swarm.base.errors import InvalidArgument, NotFound, PermissionDenied, SwarmError, Unavailable
from swarm.base.ids import IdSource, NodeID, ServiceID
from swarm.base.log import get_logger
from swarm.manager.log_position import LogPosition
from swarm.model.objects import Node, Task
from swarm.model.task_state import TaskState
from swarm.model.types import NodeState
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.rpc import Context, caller
from swarm.store.store import Store

QUEUE_LINES = 1000
LISTENER_QUEUE = 100
RESUME_EVERY_S = 0.5
STREAMS = ("stdout", "stderr")

log = get_logger("logbroker")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    follow: bool = False
    stdout: bool = True
    stderr: bool = True
    tail: int | None = None
    """Lines from the end of each task's log; None means all."""
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    task: Task
    timestamp: datetime
    stream: str
    """`stdout` or `stderr`."""
    text: bytes


class Remote(Protocol):
    def __call__(
        self, manager_id: NodeID, task_ids: Iterable[str], options: LogOptions
    ) -> AsyncGenerator[pb.LogMessage, None]:
        """What another manager's nodes send. Raises: Unavailable."""
        ...


@dataclass(slots=True)
class _Reader:
    """One reader's queue and the subscriptions that fill it. None in the queue: look whether that was all."""

    options: LogOptions
    is_endless: bool
    remote: Remote | None
    """None for a reader that is another manager: that one goes on by itself."""
    group: asyncio.TaskGroup | None = None
    background: list[asyncio.Task[None]] = field(default_factory=list)
    lines: asyncio.Queue[LogLine | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_LINES))
    seen: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    missing: set[NodeID] = field(default_factory=set)
    position: LogPosition = field(default_factory=LogPosition)

    @property
    def resumes(self) -> bool:
        return self.options.follow and self.remote is not None

    async def take(self, line: pb.LogMessage, tasks: Mapping[str, Task]) -> None:
        found = _read(line, tasks)
        if self.position.is_new(line):
            await self.lines.put(found)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` for as long as there is a reader."""
        assert self.group is not None, "the reader is being read"
        self.background.append(self.group.create_task(work))

    def is_done(self) -> bool:
        return not self.open and not self.is_endless and self.lines.empty()

    def close(self, subscription_id: str) -> None:
        self.open.discard(subscription_id)
        if not self.lines.full():
            self.lines.put_nowait(None)


class _Listener:
    """What a node is to be told. Openings are bounded; closings are not lost, and are fewer than openings."""

    def __init__(self) -> None:
        self._messages: dict[str, pb.SubscriptionMessage] = {}
        self._news = asyncio.Event()

    def open(self, message: pb.SubscriptionMessage) -> bool:
        if len(self._messages) >= LISTENER_QUEUE:
            return False
        self._messages[message.id] = message
        self._news.set()
        return True

    def close(self, subscription_id: str) -> None:
        if self._messages.pop(subscription_id, None) is None:
            self._messages[subscription_id] = pb.SubscriptionMessage(id=subscription_id, close=True)
            self._news.set()

    async def next(self) -> pb.SubscriptionMessage:
        while not self._messages:
            self._news.clear()
            await self._news.wait()
        return self._messages.pop(next(iter(self._messages)))


@dataclass(frozen=True, slots=True)
class _Subscription:
    id: str
    node_id: NodeID
    listener: _Listener
    tasks: dict[str, Task]
    reader: _Reader


class LogBroker(dispatcher_pb2_grpc.LogBrokerServicer):
    def __init__(self, store: Store, new_id: IdSource, remote: Remote | None = None) -> None:
        """`remote` reads from the manager that a node has its session with, when that is another one."""
        self._store = store
        self._new_id = new_id
        self._remote = remote
        self._subscriptions: dict[str, _Subscription] = {}
        self._listeners: dict[NodeID, _Listener] = {}

    @asynccontextmanager
    async def read_tasks(
        self, tasks: Iterable[Task], options: LogOptions
    ) -> AsyncIterator[AsyncIterator[LogLine]]:
        """The lines of these tasks as their nodes send them, to the end of each log."""
        async with self._reading(_Reader(options, is_endless=False, remote=self._remote)) as reader:
            self._subscribe(reader, tasks)
            yield self._lines(reader)

    @asynccontextmanager
    async def read_local(
        self, tasks: Iterable[Task], options: LogOptions
    ) -> AsyncIterator[AsyncIterator[LogLine]]:
        """Like `read_tasks`, of the nodes whose session is here: what another manager asks for."""
        async with self._reading(_Reader(options, is_endless=False, remote=None)) as reader:
            self._subscribe(reader, tasks)
            yield self._lines(reader)

    @asynccontextmanager
    async def read_service(
        self, service_id: ServiceID, options: LogOptions
    ) -> AsyncIterator[AsyncIterator[LogLine]]:
        """The lines of a service's tasks; while following, also of those it gets later, without end."""
        async with self._reading(_Reader(options, is_endless=options.follow, remote=self._remote)) as reader:
            if options.follow:
                reader.start(self._follow(reader, service_id))
            self._subscribe(reader, self._store.view.tasks_of_service(service_id))
            yield self._lines(reader)

    @asynccontextmanager
    async def _reading(self, reader: _Reader) -> AsyncIterator[_Reader]:
        async with asyncio.TaskGroup() as group:
            reader.group = group
            try:
                yield reader
            finally:
                self._unsubscribe(reader)
                for task in reader.background:
                    task.cancel()

    async def ListenSubscriptions(
        self, request: pb.ListenSubscriptionsRequest, context: Context
    ) -> AsyncIterator[pb.SubscriptionMessage]:
        node_id = caller().node_id
        listener = _Listener()
        self._listeners[node_id] = listener
        try:
            while True:
                yield await listener.next()
        finally:
            if self._listeners.get(node_id) is listener:
                del self._listeners[node_id]
            for subscription in list(self._subscriptions.values()):
                if subscription.listener is listener:
                    self._lose(subscription)

    async def PublishLogs(
        self, request: AsyncIterator[pb.PublishLogsMessage], context: Context
    ) -> pb.PublishLogsResponse:
        node_id = caller().node_id
        subscription: _Subscription | None = None
        is_whole = False
        try:
            async for message in request:
                found = self._subscriptions.get(message.subscription_id)
                if found is None:
                    raise NotFound("subscription", message.subscription_id)
                if found.node_id != node_id:
                    raise PermissionDenied("cannot publish logs of a task not assigned this node")
                subscription = found
                for line in message.messages:
                    await subscription.reader.take(line, subscription.tasks)
                is_whole = message.close
        finally:
            if subscription is not None and is_whole:
                subscription.reader.close(subscription.id)
            elif subscription is not None:
                self._lose(subscription)
        return pb.PublishLogsResponse()

    async def _lines(self, reader: _Reader) -> AsyncIterator[LogLine]:
        while not reader.is_done():
            line = await reader.lines.get()
            if line is not None:
                yield line
        if reader.missing:
            nodes = (self._store.view.get(Node, n) for n in sorted(reader.missing))
            names = ", ".join(node.description.hostname or node.id for node in nodes if node)
            raise Unavailable(f"incomplete log stream: these nodes are not available: {names}")

    async def _follow(self, reader: _Reader, service_id: ServiceID) -> None:
        with self._store.changes(Task) as changes:
            while True:
                changed = await changes.wait()
                tasks = (c.new for c in changed.values() if isinstance(c.new, Task))
                self._subscribe(reader, [t for t in tasks if t.service_id == service_id])

    def _subscribe(self, reader: _Reader, tasks: Iterable[Task]) -> None:
        by_node: dict[NodeID, dict[str, Task]] = {}
        for task in tasks:
            if task.status.state >= TaskState.ASSIGNED and task.node_id and task.id not in reader.seen:
                reader.seen.add(task.id)
                by_node.setdefault(task.node_id, {})[task.id] = task
        for node_id, of_node in by_node.items():
            if not self._begin(reader, node_id, of_node, reader.options):
                self._lack(reader, node_id, of_node)

    def _begin(self, reader: _Reader, node_id: NodeID, tasks: dict[str, Task], options: LogOptions) -> bool:
        """Have the node send the lines of the tasks; False while it cannot be reached."""
        listener = self._listeners.get(node_id)
        if listener is None:
            return self._read_elsewhere(reader, node_id, tasks, options)
        subscription = _Subscription(self._new_id(), node_id, listener, tasks, reader)
        if not listener.open(_message(subscription, options)):
            log.warning("logs.listener.full", node_id=node_id)
            return False
        self._subscriptions[subscription.id] = subscription
        reader.open.add(subscription.id)
        return True

    def _lose(self, subscription: _Subscription) -> None:
        """The node has gone before it had sent everything."""
        reader = subscription.reader
        if self._subscriptions.pop(subscription.id, None) is None or subscription.id not in reader.open:
            return
        self._lack(reader, subscription.node_id, subscription.tasks)
        reader.close(subscription.id)

    def _lack(self, reader: _Reader, node_id: NodeID, tasks: dict[str, Task]) -> None:
        if not reader.resumes:
            reader.missing.add(node_id)
            return
        waiting_id = self._new_id()
        reader.open.add(waiting_id)
        reader.start(self._resume(reader, waiting_id, node_id, tasks))

    async def _resume(
        self, reader: _Reader, waiting_id: str, node_id: NodeID, tasks: dict[str, Task]
    ) -> None:
        """Go on with the tasks' lines once the node can be reached, wherever its session is then."""
        known = {task_id: task for task_id, task in tasks.items() if reader.position.since((task_id,))}
        fresh = {task_id: task for task_id, task in tasks.items() if task_id not in known}
        again = replace(reader.options, tail=None, since=reader.position.since(known))
        parts = [part for part in ((known, again), (fresh, reader.options)) if part[0]]
        try:
            while parts:
                await asyncio.sleep(RESUME_EVERY_S)
                if self._store.view.get(Node, node_id) is None:
                    reader.missing.add(node_id)
                    return
                of_part, options = parts[0]
                reader.position.resume(of_part)
                if self._begin(reader, node_id, of_part, options):
                    parts.pop(0)
        finally:
            reader.close(waiting_id)

    def _read_elsewhere(
        self, reader: _Reader, node_id: NodeID, tasks: dict[str, Task], options: LogOptions
    ) -> bool:
        node = self._store.view.get(Node, node_id)
        if reader.remote is None or node is None or node.status.state is not NodeState.READY:
            return False
        subscription_id = self._new_id()
        reader.open.add(subscription_id)
        lines = reader.remote(node.status.manager_id, tasks, options)
        reader.start(self._relay(reader, subscription_id, lines, tasks))
        return True

    async def _relay(
        self,
        reader: _Reader,
        subscription_id: str,
        lines: AsyncGenerator[pb.LogMessage, None],
        tasks: dict[str, Task],
    ) -> None:
        try:
            async with aclosing(lines):
                async for line in lines:
                    await reader.take(line, tasks)
        except SwarmError as error:
            log.info("logs.relay.ended", reason=str(error))
            self._lack(reader, next(iter(tasks.values())).node_id, tasks)
        finally:
            reader.close(subscription_id)

    def _unsubscribe(self, reader: _Reader) -> None:
        for subscription in [s for s in self._subscriptions.values() if s.reader is reader]:
            del self._subscriptions[subscription.id]
            subscription.listener.close(subscription.id)


def wire_line(line: LogLine) -> pb.LogMessage:
    message = pb.LogMessage(task_id=line.task.id, stream=line.stream, data=line.text)
    message.timestamp.FromDatetime(line.timestamp)
    return message


def options_of(options: pb.LogOptions) -> LogOptions:
    return LogOptions(
        follow=options.follow,
        stdout=options.stdout,
        stderr=options.stderr,
        tail=options.tail if options.HasField("tail") else None,
        since=options.since.ToDatetime(tzinfo=UTC) if options.HasField("since") else None,
    )


def wire_options(options: LogOptions) -> pb.LogOptions:
    wanted = pb.LogOptions(
        follow=options.follow, stdout=options.stdout, stderr=options.stderr, tail=options.tail
    )
    if options.since is not None:
        wanted.since.FromDatetime(options.since)
    return wanted


def _read(line: pb.LogMessage, tasks: Mapping[str, Task]) -> LogLine:
    task = tasks.get(line.task_id)
    if task is None:
        raise PermissionDenied("cannot publish logs of a task not asked for")
    if line.stream not in STREAMS:
        raise InvalidArgument(f"invalid stream {line.stream!r}: it is one of {' and '.join(STREAMS)}")
    return LogLine(
        task=task, timestamp=line.timestamp.ToDatetime(tzinfo=UTC), stream=line.stream, text=line.data
    )


def _message(subscription: _Subscription, options: LogOptions) -> pb.SubscriptionMessage:
    wanted = wire_options(options)
    return pb.SubscriptionMessage(id=subscription.id, task_ids=subscription.tasks, options=wanted)
