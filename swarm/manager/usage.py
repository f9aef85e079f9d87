"""What tasks use: told by their nodes to the manager that has their session, asked for by the leader.

Held in memory only: a figure is worth something for seconds.
Invariant: a node speaks for its own tasks alone, and nothing older than FRESH_S is passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.base.clock import Clock
from swarm.base.ids import TaskID
from swarm.manager.orchestrator.autoscale import Usage
from swarm.model.objects import Task
from swarm.model.view import ClusterView
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.rpc import Context, caller

FRESH_S = 10.0


@dataclass(frozen=True, slots=True)
class _Entry:
    at_s: float
    usage: Usage


class UsageBook(dispatcher_pb2_grpc.UsageBookServicer):
    def __init__(self, view: ClusterView, clock: Clock) -> None:
        self._view = view
        self._clock = clock
        self._entries: dict[TaskID, _Entry] = {}

    def current(self) -> Mapping[TaskID, Usage]:
        """What this manager has been told of late."""
        oldest = self._clock.monotonic() - FRESH_S
        self._entries = {task_id: entry for task_id, entry in self._entries.items() if entry.at_s >= oldest}
        return {task_id: entry.usage for task_id, entry in self._entries.items()}

    async def ReportUsage(self, request: pb.ReportUsageRequest, context: Context) -> pb.ReportUsageResponse:
        now_s, node_id = self._clock.monotonic(), caller().node_id
        for found in request.usage:
            task = self._view.get(Task, found.task_id)
            if task is not None and task.node_id == node_id:
                self._entries[task.id] = _Entry(now_s, usage_of(found))
        return pb.ReportUsageResponse()

    async def ReadUsage(self, request: pb.ReadUsageRequest, context: Context) -> pb.ReadUsageResponse:
        return pb.ReadUsageResponse(
            usage=[
                pb.TaskUsage(task_id=task_id, nano_cpus=usage.nano_cpus, memory_bytes=usage.memory_bytes)
                for task_id, usage in self.current().items()
            ]
        )


def usage_of(message: pb.TaskUsage) -> Usage:
    return Usage(nano_cpus=max(message.nano_cpus, 0), memory_bytes=max(message.memory_bytes, 0))
