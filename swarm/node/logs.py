"""Service and task logs for the API, read through the manager's log broker.

Lines of several tasks come in the order of their times (`swarm.manager.log_order`). A node that cannot be
reached is told of by one line on stderr, in its task's name, and stops nobody else's lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass

from swarm.api import backend as api
from swarm.base.clock import Clock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID, ServiceID
from swarm.manager.log_order import LogOrder
from swarm.manager.logbroker import LogBroker, LogLine, LogOptions
from swarm.model.objects import Node, Task
from swarm.model.task_state import TaskState
from swarm.model.types import NodeState
from swarm.model.view import ClusterView


@dataclass(frozen=True, slots=True)
class Silence:
    """A node whose tasks' logs cannot be had."""

    newest: Task
    tasks: int
    why: str


class ClusterLogs:
    def __init__(self, broker: LogBroker, view: ClusterView, clock: Clock) -> None:
        self._broker = broker
        self._view = view
        self._clock = clock

    def read(
        self, selector: api.LogSelector, options: api.LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[api.LogMessage]]:
        return self._reading(selector, options)

    @asynccontextmanager
    async def _reading(
        self, selector: api.LogSelector, options: api.LogOptions
    ) -> AsyncIterator[AsyncIterator[api.LogMessage]]:
        wanted = LogOptions(
            follow=options.follow,
            stdout=api.LogStream.STDOUT in options.streams,
            stderr=api.LogStream.STDERR in options.streams,
            tail=options.tail,
            since=options.since,
        )
        service_id = ServiceID(selector.service_id)
        if service_id:
            tasks = self._view.tasks_of_service(service_id)
            reading = self._broker.read_service(service_id, wanted)
        else:
            tasks = tuple(t for t in (self._view.get(Task, i) for i in selector.task_ids) if t)
            reading = self._broker.read_tasks(tasks, wanted)
        async with reading as lines, aclosing(self._messages(lines, tasks, options)) as messages:
            yield messages

    async def _messages(
        self, lines: AsyncIterator[LogLine], tasks: Sequence[Task], options: api.LogOptions
    ) -> AsyncGenerator[api.LogMessage, None]:
        silent = silences(self._view, tasks)
        if api.LogStream.STDERR in options.streams:
            for silence in silent:
                yield _warning(silence, self._clock)
        try:
            async with aclosing(in_order(lines, self._clock, follow=options.follow)) as ordered:
                async for line in ordered:
                    yield _message(line)
        except Unavailable:
            if not silent:
                raise


def silences(view: ClusterView, tasks: Iterable[Task]) -> list[Silence]:
    """One for each node that has, or had, some of the tasks and cannot be reached."""
    of_node: dict[NodeID, list[Task]] = {}
    for task in tasks:
        if task.node_id and task.status.state >= TaskState.ASSIGNED:
            of_node.setdefault(task.node_id, []).append(task)
    found = []
    for node_id, group in of_node.items():
        node = view.get(Node, node_id)
        if node is None:
            found.append(Silence(group[-1], len(group), "their node was removed"))
        elif node.status.state is not NodeState.READY:
            name = node.description.hostname or node.id
            found.append(Silence(group[-1], len(group), f"{name} is {node.status.state}"))
    return found


async def in_order(
    lines: AsyncIterator[LogLine], clock: Clock, *, follow: bool
) -> AsyncGenerator[LogLine, None]:
    """`lines` by time, held as long as `LogOrder` says. Raises what reading them raises, after the rest."""
    order: LogOrder[LogLine] = LogOrder(is_followed=follow, now_s=clock.monotonic())
    reading = asyncio.ensure_future(anext(lines, None))
    try:
        while True:
            deadline = order.deadline_s()
            wait_s = None if deadline is None else max(0.0, deadline - clock.monotonic())
            done, _ = await asyncio.wait({reading}, timeout=wait_s)
            if done and (reading.exception() is not None or reading.result() is None):
                break
            if done:
                line = reading.result()
                assert line is not None, "looked at above"
                for ready in order.add(line.task.id, line, clock.monotonic()):
                    yield ready
                reading = asyncio.ensure_future(anext(lines, None))
            for ready in order.due(clock.monotonic()):
                yield ready
        for ready in order.rest():
            yield ready
        reading.result()
    finally:
        reading.cancel()
        await asyncio.wait({reading})


def _warning(silence: Silence, clock: Clock) -> api.LogMessage:
    number = "the log of this task is" if silence.tasks == 1 else f"the logs of {silence.tasks} tasks are"
    return api.LogMessage(
        task_id=silence.newest.id,
        node_id=silence.newest.node_id,
        service_id=silence.newest.service_id,
        stream=api.LogStream.STDERR,
        timestamp=clock.now(),
        data=f"swarm: {number} not available: {silence.why}".encode(),
    )


def _message(line: LogLine) -> api.LogMessage:
    return api.LogMessage(
        task_id=line.task.id,
        node_id=line.task.node_id,
        service_id=line.task.service_id,
        stream=api.LogStream(line.stream),
        timestamp=line.timestamp,
        data=line.text,
    )
