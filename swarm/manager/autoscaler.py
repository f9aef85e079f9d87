"""The leader's edge of autoscaling: asks every manager what tasks use, plans, and applies fenced.

Nobody is asked while no service scales by itself. A manager that does not answer is left out: tasks of its
nodes are then without a figure, and their services stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from swarm.base.clock import Clock
from swarm.base.errors import SwarmError, Unavailable
from swarm.base.ids import NodeID, TaskID
from swarm.base.log import get_logger
from swarm.manager.orchestrator.autoscale import Usage, plan_autoscale
from swarm.model.objects import Node, Service
from swarm.model.options import service_options
from swarm.model.plan import join
from swarm.model.view import ClusterView
from swarm.store.store import Store

LOOK_EVERY_S = 3.0
ASK_TIMEOUT_S = 2.0

log = get_logger("autoscaler")

Ask = Callable[[Node], Awaitable[Mapping[TaskID, Usage]]]


class Autoscaler:
    def __init__(
        self, store: Store, clock: Clock, epoch: int, own: Callable[[], Mapping[TaskID, Usage]], ask: Ask
    ) -> None:
        """`own` is what this manager was told; `ask` asks another one. It may raise SwarmError."""
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._own = own
        self._ask = ask

    async def run(self, me: NodeID) -> None:
        """Until cancelled. Raises: LeadershipLost."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            services = list(scaling_services(self._store.view))
            if not services:
                continue
            usage = await self._gather(me)
            now = self._clock.now()
            plan = join(plan_autoscale(self._store.view, service, usage, now) for service in services)
            if not plan.ops:
                continue
            try:
                await self._store.apply(plan.ops, epoch=self._epoch)
            except Unavailable as error:
                log.warning("scaling.unapplied", reason=str(error))

    async def _gather(self, me: NodeID) -> Mapping[TaskID, Usage]:
        others = [
            node for node in self._store.view.list(Node) if node.manager_status is not None and node.id != me
        ]
        answers = await asyncio.gather(*(self._answer(node) for node in others))
        found = dict(self._own())
        for answer in answers:
            found.update(answer)
        return found

    async def _answer(self, node: Node) -> Mapping[TaskID, Usage]:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await self._ask(node)
        except (SwarmError, TimeoutError) as error:
            log.info("usage.unknown", manager=node.id, reason=str(error))
            return {}


def scaling_services(view: ClusterView) -> Iterable[Service]:
    return (s for s in view.list(Service) if service_options(s.spec.labels).autoscale is not None)
