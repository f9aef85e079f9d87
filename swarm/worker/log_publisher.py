"""Sends the logs of this node's tasks to the managers that ask for them, and reads them for the local API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

import grpc
import grpc.aio

from swarm.base.log import get_logger
from swarm.model.task_state import TaskState
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.worker import logs
from swarm.worker.logfile import LogLine
from swarm.worker.runtime.containers import Containers
from swarm.worker.tasks import Tasks

BATCH_LINES = 100
BATCH_BYTES = 1 << 20
"""A line may have a megabyte, and a message has a limit."""

log = get_logger("logs")


class LogPublisher:
    def __init__(self, containers: Containers, tasks: Tasks) -> None:
        self._containers = containers
        self._tasks = tasks

    async def run(self, stub: dispatcher_pb2_grpc.LogBrokerAsyncStub) -> None:
        """Serve subscriptions until the stream breaks."""
        open_subscriptions: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            async for wanted in stub.ListenSubscriptions(pb.ListenSubscriptionsRequest()):
                if wanted.close:
                    publishing = open_subscriptions.pop(wanted.id, None)
                    if publishing is not None:
                        publishing.cancel()
                    continue
                open_subscriptions[wanted.id] = group.create_task(self._publish(stub, wanted))
            for publishing in open_subscriptions.values():
                publishing.cancel()

    def read(
        self, task_id: str, *, tail: int | None, since: datetime | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """The log of one task's container on this node."""
        path = self._containers.log_path(task_id)
        return logs.read(
            path, tail=tail, since=since, follow=follow, has_ended=lambda: self._has_ended(task_id)
        )

    async def _publish(
        self, stub: dispatcher_pb2_grpc.LogBrokerAsyncStub, wanted: pb.SubscriptionMessage
    ) -> None:
        queue: asyncio.Queue[pb.LogMessage | None] = asyncio.Queue(BATCH_LINES * 10)
        call = stub.PublishLogs()
        try:
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(self._read(t, wanted.options, queue)) for t in wanted.task_ids]
                group.create_task(_finish(reading, queue))
                await _send(call, wanted.id, queue)
        except* (grpc.aio.AioRpcError, asyncio.InvalidStateError, OSError, ValueError) as errors:
            log.info("logs.publish.ended", subscription=wanted.id, reason=str(errors.exceptions[0]))
        finally:
            call.cancel()

    async def _read(
        self, task_id: str, options: pb.LogOptions, queue: asyncio.Queue[pb.LogMessage | None]
    ) -> None:
        if options.follow:
            await self._tasks.made(task_id)
        streams = {name for name, on in (("stdout", options.stdout), ("stderr", options.stderr)) if on}
        tail = options.tail if options.HasField("tail") else None
        since = options.since.ToDatetime(tzinfo=UTC) if options.HasField("since") else None
        with suppress(FileNotFoundError):
            async for line in self.read(task_id, tail=tail, since=since, follow=options.follow):
                if line.stream in streams:
                    message = pb.LogMessage(task_id=task_id, stream=line.stream, data=line.data)
                    message.timestamp.FromJsonString(line.timestamp)
                    await queue.put(message)

    def _has_ended(self, task_id: str) -> bool:
        task = self._tasks.get(task_id)
        return task is None or task.status.state > TaskState.RUNNING


async def _send(
    call: grpc.aio.StreamUnaryCall[pb.PublishLogsMessage, pb.PublishLogsResponse],
    subscription_id: str,
    queue: asyncio.Queue[pb.LogMessage | None],
) -> None:
    """Everything in the queue up to its end, several lines at a time."""
    done = False
    while not done:
        line = await queue.get()
        lines: list[pb.LogMessage] = []
        size = 0
        while line is not None:
            lines.append(line)
            size += len(line.data)
            if len(lines) == BATCH_LINES or size >= BATCH_BYTES or queue.empty():
                break
            line = queue.get_nowait()
        done = line is None
        await call.write(pb.PublishLogsMessage(subscription_id=subscription_id, messages=lines, close=done))
    await call.done_writing()
    await call


async def _finish(reading: list[asyncio.Task[None]], queue: asyncio.Queue[pb.LogMessage | None]) -> None:
    if reading:
        await asyncio.wait(reading)
    await queue.put(None)
