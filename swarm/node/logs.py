"""Service and task logs for the API, read through the manager's log broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from swarm.api import backend as api
from swarm.base.ids import ServiceID
from swarm.manager.logbroker import LogBroker, LogLine, LogOptions
from swarm.model.objects import Task
from swarm.model.view import ClusterView


class ClusterLogs:
    def __init__(self, broker: LogBroker, view: ClusterView) -> None:
        self._broker = broker
        self._view = view

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
        if selector.service_id:
            reading = self._broker.read_service(ServiceID(selector.service_id), wanted)
        else:
            found = (self._view.get(Task, task_id) for task_id in selector.task_ids)
            reading = self._broker.read_tasks([task for task in found if task], wanted)
        async with reading as lines, aclosing(_messages(lines)) as messages:
            yield messages


async def _messages(lines: AsyncIterator[LogLine]) -> AsyncGenerator[api.LogMessage, None]:
    async for line in lines:
        yield api.LogMessage(
            task_id=line.task.id,
            node_id=line.task.node_id,
            service_id=line.task.service_id,
            stream=api.LogStream(line.stream),
            timestamp=line.timestamp,
            data=line.text,
        )
