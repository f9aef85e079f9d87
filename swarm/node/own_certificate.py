"""How a manager gets its next certificate when nobody can renew the one it has: it signs it itself.

In: the store that it serves from. Out: an identity that the others take again.
Invariant: nothing is signed on the word of this host alone. A quorum has told what is stored just now (a
former manager gets none), and no manager that can be reached has a clock that differs by more than an hour.
"""

from __future__ import annotations

from swarm.base.clock import Clock
from swarm.manager.ca.certificates import certify_own
from swarm.model.objects import Node
from swarm.node.joining import compare_clocks
from swarm.proto.identity import Identity
from swarm.store.store import Store


async def certify_itself(store: Store, identity: Identity, clock: Clock) -> Identity:
    """Raises: Unavailable without a quorum; PermissionDenied, FailedPrecondition."""
    await store.sync()
    others = [
        node.manager_status.addr
        for node in store.view.list(Node)
        if node.manager_status is not None and node.id != identity.subject.node_id
    ]
    await compare_clocks(others, clock)
    return certify_own(store.view, identity, clock.now())
