"""Notices that the cluster has been recovered without this manager: another one is of a newer generation.

A manager that comes back after a recovery still holds the old state, and with another one like it the old
quorum. So before it leads, and again and again, it asks every other manager it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarm.base.errors import FailedPrecondition, SwarmError
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.model.defaults import CLUSTER_PORT
from swarm.model.objects import Cluster, Node
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.gen import managers_pb2_grpc
from swarm.proto.identity import Identity
from swarm.proto.rpc import open_channel, translated
from swarm.store.store import Store

ASK_EVERY_S = 5.0
TIMEOUT_S = 1.0

log = get_logger("generation")


class Expelled(FailedPrecondition):
    """The cluster goes on without this manager."""


class GenerationWatch:
    def __init__(self, store: Store, me: NodeID, identity: Callable[[], Identity]) -> None:
        self._store = store
        self._me = me
        self._identity = identity
        self._asked = asyncio.Event()

    @property
    def own(self) -> int:
        clusters = self._store.view.list(Cluster)
        return clusters[0].generation if clusters else 0

    async def asked(self) -> None:
        """Wait until everybody has been asked once."""
        await self._asked.wait()

    async def run(self) -> None:
        """Until cancelled. Raises: Expelled."""
        while True:
            others = [
                f"{n.manager_status.addr.rpartition(':')[0]}:{CLUSTER_PORT}"
                for n in self._store.view.list(Node)
                if n.manager_status is not None and n.id != self._me
            ]
            newest = max(await asyncio.gather(*(self._ask(target) for target in others)), default=0)
            if newest > self.own:
                log.error("manager.expelled", own=self.own, newest=newest)
                raise Expelled("the swarm has been recovered without this manager")
            self._asked.set()
            await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, target: str) -> int:
        """The generation of the manager there; 0 when it does not answer."""
        async with open_channel(target, self._identity()) as channel:
            stub: managers_pb2_grpc.ManagersAsyncStub = managers_pb2_grpc.ManagersStub(channel)
            try:
                answer = await translated(stub.Generation(pb.GenerationRequest(), timeout=TIMEOUT_S))
            except SwarmError:
                return 0
            return answer.generation
