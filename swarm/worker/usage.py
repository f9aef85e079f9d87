"""Tells the manager what tasks use, for services that scale by themselves; other tasks are not looked at.

Cgroup counters in, CPU time per time and memory out, every few seconds while a session lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from swarm.base.clock import Clock
from swarm.base.errors import NotFound
from swarm.model.objects import Task
from swarm.model.options import service_options
from swarm.model.task_state import TaskState
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.rpc import translated
from swarm.worker.runtime.containers import Containers

EVERY_S = 3.0
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Reading:
    at_s: float
    cpu_ns: int


class UsageReporter:
    def __init__(self, containers: Containers, tasks: Callable[[], tuple[Task, ...]], clock: Clock) -> None:
        self._containers = containers
        self._tasks = tasks
        self._clock = clock
        self._last: dict[str, _Reading] = {}

    async def run(self, stub: dispatcher_pb2_grpc.UsageBookAsyncStub) -> None:
        """Until the session ends."""
        while True:
            await asyncio.sleep(EVERY_S)
            usage = self._read()
            if usage:
                await translated(
                    stub.ReportUsage(pb.ReportUsageRequest(usage=usage), timeout=TIMEOUT_S),
                )

    def _read(self) -> list[pb.TaskUsage]:
        found: list[pb.TaskUsage] = []
        last, self._last = self._last, {}
        for task in self._tasks():
            if task.status.state is not TaskState.RUNNING or not is_watched(task):
                continue
            try:
                stats = self._containers.stats(task.id)
            except NotFound:
                continue
            reading = _Reading(self._clock.monotonic(), stats.cpu_usage_ns)
            self._last[task.id] = reading
            before = last.get(task.id)
            if before is not None and reading.at_s > before.at_s:
                rate = (reading.cpu_ns - before.cpu_ns) / (reading.at_s - before.at_s)
                found.append(
                    pb.TaskUsage(task_id=task.id, nano_cpus=int(rate), memory_bytes=stats.memory_usage_bytes)
                )
        return found


def is_watched(task: Task) -> bool:
    """Whether anyone wants to know what the task uses."""
    return service_options(task.service_labels).autoscale is not None
