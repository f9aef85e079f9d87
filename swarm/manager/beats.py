"""Which managers serve: each rewrites a key of its own, and everybody watches everybody's.

Times are this manager's own monotonic clock, from when it saw a new beat: no clock of another host counts.
"""

from __future__ import annotations

import asyncio

from swarm.base.clock import Clock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.store import keys
from swarm.store.kv import Put
from swarm.store.store import Store

BEAT_EVERY_S = 1.0
SILENT_FOR_S = 4.0

log = get_logger("beats")


class ManagerBeats:
    def __init__(self, store: Store, clock: Clock, me: NodeID) -> None:
        self._store = store
        self._clock = clock
        self._me = me
        self._seen: dict[NodeID, tuple[int, float]] = {}

    def is_reachable(self, node_id: NodeID) -> bool:
        """Whether the manager has beaten lately; one never heard of gets the benefit of the doubt for a while."""
        self._look(node_id)
        return self._clock.monotonic() - self._seen[node_id][1] < SILENT_FOR_S

    async def run(self) -> None:
        """Beat until cancelled."""
        count = 0
        while True:
            count += 1
            try:
                async with asyncio.timeout(SILENT_FOR_S):
                    await self._store.write_raw((), (Put(keys.MANAGERS + self._me, str(count).encode()),))
            except (Unavailable, TimeoutError) as error:
                log.info("beat.unwritten", reason=str(error))
            for known in list(self._seen):
                self._look(known)
            await asyncio.sleep(BEAT_EVERY_S)

    def _look(self, node_id: NodeID) -> None:
        beat = self._store.raw(keys.MANAGERS + node_id)
        revision = beat.mod_revision if beat else 0
        known = self._seen.get(node_id)
        if known is None or known[0] != revision:
            self._seen[node_id] = (revision, self._clock.monotonic())
