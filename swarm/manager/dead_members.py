"""On every manager: lets go of the connections to one that is taken out of the store and whose host is gone.

etcd closes its connections to a removed member within its raft loop. One that has a dead host at its other
end and a full buffer takes up to ten seconds to close, and as long neither beats nor writes pass through that
member. So they are ended before: whoever removes the member waits `LET_GO_S` for that.
Seen with etcd 3.4.23; the member that leads raft is the one that has sent the most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from swarm.base.ids import NodeID
from swarm.model.objects import Node
from swarm.model.types import NodeRole
from swarm.model.view import ClusterView
from swarm.store.store import Store

LET_GO_S = 0.5
"""For the news of a demotion to reach the other managers, and for them to act."""


def leaving_managers(view: ClusterView) -> dict[NodeID, str]:
    """Those that are to be taken out of the store, and the addresses of their hosts."""
    return {
        node.id: node.manager_status.addr.rpartition(":")[0]
        for node in view.list(Node)
        if node.spec.role is NodeRole.WORKER and node.manager_status is not None
    }


class DeadMembers:
    def __init__(
        self, store: Store, is_reachable: Callable[[NodeID], bool], end: Callable[[str], Awaitable[None]]
    ) -> None:
        """`end` ends this host's connections to an address."""
        self._store = store
        self._is_reachable = is_reachable
        self._end = end

    async def run(self) -> None:
        """Until cancelled."""
        ended: set[NodeID] = set()
        with self._store.changes(Node) as changes:
            while True:
                leaving = leaving_managers(self._store.view)
                ended &= leaving.keys()
                for node_id, address in leaving.items():
                    if node_id not in ended and not self._is_reachable(node_id):
                        await self._end(address)
                        ended.add(node_id)
                await changes.wait()
