"""The leader's watch over nodes whose manager has gone: a session lives as long as the manager that holds it.

A node moves to another manager within a second or two. One that is still booked on a manager that has been
silent for the beats' limit is down: both have gone together, or the node is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from swarm.base.clock import Clock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.model.objects import Node
from swarm.model.plan import Plan, Update
from swarm.model.types import NodeState
from swarm.model.view import ClusterView
from swarm.store.store import Store

LOOK_EVERY_S = 0.5

log = get_logger("liveness")


def plan_orphaned_sessions(view: ClusterView, now: datetime, is_reachable: Callable[[NodeID], bool]) -> Plan:
    """Mark as down every node whose session's manager is no longer reachable."""
    lost = (
        node
        for node in view.list(Node)
        if node.status.state in (NodeState.READY, NodeState.UNKNOWN)
        and node.status.manager_id
        and not is_reachable(node.status.manager_id)
    )
    return Plan.of(
        Update(
            object=replace(
                node,
                status=replace(
                    node.status, state=NodeState.DOWN, message="its manager is not reachable", changed_at=now
                ),
            )
        )
        for node in lost
    )


class Liveness:
    def __init__(
        self, store: Store, clock: Clock, epoch: int, is_reachable: Callable[[NodeID], bool]
    ) -> None:
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._is_reachable = is_reachable

    async def run(self) -> None:
        """Until cancelled. Raises: LeadershipLost."""
        while True:
            plan = plan_orphaned_sessions(self._store.view, self._clock.now(), self._is_reachable)
            for op in plan.ops:
                log.warning("node.down", node_id=op.object.id, reason="its manager is not reachable")
            try:
                if plan.ops:
                    await self._store.apply(plan.ops, epoch=self._epoch)
            except Unavailable as error:
                log.info("liveness.unwritten", reason=str(error))
            await asyncio.sleep(LOOK_EVERY_S)
