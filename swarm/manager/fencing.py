"""The leader's knowledge of lost hosts' exclusive tasks: when they must have ended, it says so.

A task of an exclusive service counts as running until its record says that it has ended. Its host says so or,
once the host must have fenced itself (`swarm.model.exclusive` tells why then), this does: it is ORPHANED. The
time runs by this leader's own clock from when it saw the node down or gone; another leader waits anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Set
from dataclasses import replace
from datetime import datetime

from swarm.base.clock import Clock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.model.exclusive import SURELY_FENCED_S, is_exclusive
from swarm.model.objects import Node, NodeStatus, Service, Task
from swarm.model.options import service_options
from swarm.model.plan import Plan, Update
from swarm.model.task_state import TaskState
from swarm.model.types import NodeState
from swarm.model.view import ClusterView
from swarm.store.store import Store

LOOK_EVERY_S = 0.5
FENCED = "its node was lost, and has stopped it by now"

log = get_logger("fencing")


def exclusive_tasks_on_lost_nodes(view: ClusterView) -> Iterable[Task]:
    """Those that may still run although their node is down or deleted."""
    for service in view.list(Service):
        if not service_options(service.spec.labels).exclusive:
            continue
        for task in view.tasks_of_service(service.id):
            if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING and is_exclusive(task):
                node = view.get(Node, task.node_id)
                if node is None or node.status.state is NodeState.DOWN:
                    yield task


def plan_fenced(view: ClusterView, fenced: Set[NodeID], now: datetime) -> Plan:
    """Declare the exclusive tasks of the nodes that must have fenced themselves as ended."""
    return Plan.of(
        Update(
            object=replace(
                task,
                status=replace(task.status, state=TaskState.ORPHANED, timestamp=now, message=FENCED, err=""),
            )
        )
        for task in exclusive_tasks_on_lost_nodes(view)
        if task.node_id in fenced
    )


class Fencing:
    def __init__(self, store: Store, clock: Clock, epoch: int) -> None:
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._lost: dict[NodeID, tuple[NodeStatus | None, float]] = {}
        """Lost nodes as they were first seen lost, and when. One that came back and went again has another
        status, and its time begins anew."""

    async def run(self) -> None:
        """Until cancelled. Raises: LeadershipLost."""
        while True:
            try:
                await self._look()
            except Unavailable as error:
                log.info("fencing.unwritten", reason=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        if not self._due():
            return
        await self._store.sync()  # what this manager sees may be old: a node that is back is not to be judged
        plan = plan_fenced(self._store.view, self._due(), self._clock.now())
        for op in plan.ops:
            assert isinstance(op.object, Task)
            log.warning("task.fenced", task_id=op.object.id, node_id=op.object.node_id)
        await self._store.apply(plan.ops, epoch=self._epoch)

    def _due(self) -> Set[NodeID]:
        now = self._clock.monotonic()
        seen: dict[NodeID, tuple[NodeStatus | None, float]] = {}
        for node_id in {task.node_id for task in exclusive_tasks_on_lost_nodes(self._store.view)}:
            node = self._store.view.get(Node, node_id)
            status = node.status if node else None
            known = self._lost.get(node_id)
            seen[node_id] = known if known and known[0] == status else (status, now)
        self._lost = seen
        return {node_id for node_id, (_, since) in seen.items() if now - since >= SURELY_FENCED_S}
