"""The leader's watch over nodes whose manager has gone: a session lives as long as the manager that holds it.

A node moves to another manager within a second or two. One that is still booked on a manager that has been
silent for the beats' limit is down: both have gone together, or the node is cut off. So is one that said it
would be back, or that joined, and then did not turn up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
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
AWAY_FOR_S = 30.0
"""How long a node that ended its session to come back may take: a restart of swarmd on a busy host."""

log = get_logger("liveness")


def plan_lost_nodes(
    view: ClusterView, now: datetime, has_gone: Callable[[NodeID], bool], overdue: Set[NodeID]
) -> Plan:
    """Mark as down every node whose session's manager has gone, and those of nobody that are overdue."""

    def reason(node: Node) -> str:
        if node.status.state not in (NodeState.READY, NodeState.UNKNOWN):
            return ""
        if node.status.manager_id and has_gone(node.status.manager_id):
            return "its manager is not reachable"
        return "it has not turned up" if node.id in overdue else ""

    reasons = ((node, reason(node)) for node in view.list(Node))
    return Plan.of(
        Update(
            object=replace(
                node, status=replace(node.status, state=NodeState.DOWN, message=text, changed_at=now)
            )
        )
        for node, text in reasons
        if text
    )


class Liveness:
    def __init__(self, store: Store, clock: Clock, epoch: int, has_gone: Callable[[NodeID], bool]) -> None:
        """`has_gone` tells whether a manager has been silent for too long."""
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._has_gone = has_gone
        self._away: dict[NodeID, float] = {}
        """Nodes with no manager, and since when by this manager's own clock."""

    async def run(self) -> None:
        """Until cancelled. Raises: LeadershipLost."""
        while True:
            plan = plan_lost_nodes(self._store.view, self._clock.now(), self._has_gone, self._overdue())
            for op in plan.ops:
                assert isinstance(op.object, Node)
                log.warning("node.down", node_id=op.object.id, reason=op.object.status.message)
            try:
                if plan.ops:
                    await self._store.apply(plan.ops, epoch=self._epoch)
            except Unavailable as error:
                log.info("liveness.unwritten", reason=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    def _overdue(self) -> Set[NodeID]:
        now = self._clock.monotonic()
        away = {
            node.id
            for node in self._store.view.list(Node)
            if node.status.state is NodeState.UNKNOWN and not node.status.manager_id
        }
        self._away = {node_id: self._away.get(node_id, now) for node_id in away}
        return {node_id for node_id, since in self._away.items() if now - since >= AWAY_FOR_S}
