"""Carries task statuses to the manager: the latest of each task wins; nothing unacknowledged is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from swarm.base.errors import Unavailable
from swarm.base.failpoint import failpoint
from swarm.model.objects import Task
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.rpc import translated

BATCH = 200
GATHER_S = 0.02
TIMEOUT_S = 10.0
"""More than the manager waits for its store, so that its answer is heard."""
RETRY_S = 0.5


class Reporter:
    def __init__(self) -> None:
        self._pending: dict[str, Task] = {}
        self._some = asyncio.Event()

    def put(self, task: Task) -> None:
        self._pending[task.id] = task
        self._some.set()

    def put_all(self, tasks: Iterable[Task]) -> None:
        """At the start of a session: the manager may have missed anything."""
        for task in tasks:
            self.put(task)

    async def run(self, stub: dispatcher_pb2_grpc.DispatcherAsyncStub, session_id: str) -> None:
        """Send until cancelled, or until the session breaks; what was not acknowledged stays."""
        if self._pending:
            self._some.set()
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            while self._pending:
                batch = dict(list(self._pending.items())[:BATCH])
                request = pb.UpdateTaskStatusRequest(
                    session_id=session_id,
                    updates=[
                        pb.TaskStatusUpdate(task_id=t.id, status=codec.encode(t.status))
                        for t in batch.values()
                    ],
                )
                try:
                    failpoint("agent.report.before")
                    await translated(stub.UpdateTaskStatus(request, timeout=TIMEOUT_S))
                    failpoint("agent.report.after")
                except Unavailable:
                    # The manager's store is slow or away. The session need not suffer; when the manager
                    # itself is away, the session's stream says so.
                    await asyncio.sleep(RETRY_S)
                    continue
                for task_id, sent in batch.items():
                    if self._pending.get(task_id) is sent:
                        del self._pending[task_id]
