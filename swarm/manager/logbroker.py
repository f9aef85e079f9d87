"""Logs of tasks, wherever they run: a reader subscribes here, the nodes concerned publish into its queue.

The queue is bounded; a slow reader slows the agents' streams down (they read from files) and costs no memory.
A node that cannot be reached is named in the stream and stops nobody else's lines (moby#37336).
Source: SwarmKit manager/logbroker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from swarm.base.errors import NotFound, PermissionDenied
from swarm.base.ids import IdSource, NodeID
from swarm.base.log import get_logger
from swarm.model.objects import Node, Task
from swarm.model.task_state import TaskState
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.rpc import Context, caller
from swarm.store.store import Store

QUEUE_LINES = 1000
LISTENER_QUEUE = 100

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
    task_id: str
    timestamp: datetime
    stream: str
    """`stdout`, `stderr`, or `warning` for a sentence about logs that cannot be had."""
    text: bytes


@dataclass(slots=True)
class _Subscription:
    id: str
    tasks: Mapping[NodeID, tuple[str, ...]]
    options: LogOptions
    lines: asyncio.Queue[LogLine | None]
    waiting_for: set[NodeID] = field(default_factory=set)

    def node_done(self, node_id: NodeID) -> None:
        self.waiting_for.discard(node_id)
        if not self.waiting_for:
            self._end()

    def _end(self) -> None:
        try:
            self.lines.put_nowait(None)
        except asyncio.QueueFull:
            # The reader empties the queue and then looks at `waiting_for`.
            return


class LogBroker(dispatcher_pb2_grpc.LogBrokerServicer):
    def __init__(self, store: Store, new_id: IdSource) -> None:
        self._store = store
        self._new_id = new_id
        self._subscriptions: dict[str, _Subscription] = {}
        self._listeners: dict[NodeID, asyncio.Queue[pb.SubscriptionMessage]] = {}

    async def read(self, tasks: Iterable[Task], options: LogOptions) -> AsyncIterator[LogLine]:
        """Lines of the tasks' logs as nodes send them; ends when all have sent all, or never (follow)."""
        subscription = self._subscribe(tuple(tasks), options)
        self._subscriptions[subscription.id] = subscription
        try:
            for warning in self._announce(subscription):
                yield warning
            while subscription.waiting_for or not subscription.lines.empty():
                line = await subscription.lines.get()
                if line is not None:
                    yield line
        finally:
            del self._subscriptions[subscription.id]
            for node_id in subscription.waiting_for:
                self._tell(node_id, pb.SubscriptionMessage(id=subscription.id, close=True))

    async def ListenSubscriptions(
        self, request: pb.ListenSubscriptionsRequest, context: Context
    ) -> AsyncIterator[pb.SubscriptionMessage]:
        node_id = caller().node_id
        queue: asyncio.Queue[pb.SubscriptionMessage] = asyncio.Queue(LISTENER_QUEUE)
        self._listeners[node_id] = queue
        try:
            while True:
                yield await queue.get()
        finally:
            if self._listeners.get(node_id) is queue:
                del self._listeners[node_id]
            for subscription in list(self._subscriptions.values()):
                subscription.node_done(node_id)

    async def PublishLogs(
        self, request: AsyncIterator[pb.PublishLogsMessage], context: Context
    ) -> pb.PublishLogsResponse:
        node_id = caller().node_id
        subscription: _Subscription | None = None
        try:
            async for message in request:
                subscription = self._subscriptions.get(message.subscription_id)
                if subscription is None:
                    raise NotFound("subscription", message.subscription_id)
                await self._take(subscription, node_id, message)
        finally:
            if subscription is not None:
                subscription.node_done(node_id)
        return pb.PublishLogsResponse()

    async def _take(
        self, subscription: _Subscription, node_id: NodeID, message: pb.PublishLogsMessage
    ) -> None:
        own = subscription.tasks.get(node_id, ())
        for line in message.messages:
            if line.task_id not in own:
                raise PermissionDenied("cannot publish logs of a task not assigned this node")
            timestamp = line.timestamp.ToDatetime(tzinfo=UTC)
            await subscription.lines.put(
                LogLine(task_id=line.task_id, timestamp=timestamp, stream=line.stream, text=line.data)
            )

    def _subscribe(self, tasks: tuple[Task, ...], options: LogOptions) -> _Subscription:
        by_node: dict[NodeID, tuple[str, ...]] = {}
        for task in tasks:
            if task.node_id and task.status.state >= TaskState.ASSIGNED:
                by_node[task.node_id] = (*by_node.get(task.node_id, ()), task.id)
        return _Subscription(self._new_id(), by_node, options, asyncio.Queue(QUEUE_LINES))

    def _announce(self, subscription: _Subscription) -> Iterable[LogLine]:
        for node_id, task_ids in subscription.tasks.items():
            message = _subscription_message(subscription, task_ids)
            if self._tell(node_id, message):
                subscription.waiting_for.add(node_id)
                continue
            node = self._store.view.get(Node, node_id)
            name = node.description.hostname if node else node_id
            text = f"warning: incomplete log stream: node {name} is not available"
            newest = max(t for t in task_ids)
            yield LogLine(
                task_id=newest, timestamp=datetime.fromtimestamp(0, UTC), stream="warning", text=text.encode()
            )

    def _tell(self, node_id: NodeID, message: pb.SubscriptionMessage) -> bool:
        listener = self._listeners.get(node_id)
        if listener is None:
            return False
        try:
            listener.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("logs.listener.full", node_id=node_id)
            return False
        return True


def _subscription_message(subscription: _Subscription, task_ids: Iterable[str]) -> pb.SubscriptionMessage:
    options = subscription.options
    message = pb.LogOptions(
        follow=options.follow, stdout=options.stdout, stderr=options.stderr, tail=options.tail
    )
    if options.since is not None:
        message.since.FromDatetime(options.since)
    return pb.SubscriptionMessage(id=subscription.id, task_ids=task_ids, options=message)
