"""Which managers serve: each rewrites a key of its own, and everybody watches everybody's.

A beat also says which data keys the manager has on its disk: a count, then their names.

Times are this manager's own monotonic clock, from when it saw a new beat: no clock of another host counts.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

from swarm.base.clock import Clock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.model.objects import Node
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.kv import Put
from swarm.store.store import Store

BEAT_EVERY_S = 0.7
DEAF_AFTER_S = 1.5
SILENT_FOR_S = 4.0
GONE_AFTER_S = 6.0
"""A manager that has lost the store sends its nodes away after three seconds: they get time to move."""
STARTING_FOR_S = 15.0
"""When all managers were restarted at once, the others may need longer than this one."""
REMEMBERED = 11

log = get_logger("beats")


class ManagerBeats:
    def __init__(self, store: Store, clock: Clock, me: NodeID, ring: Keyring) -> None:
        self._store = store
        self._ring = ring
        self._clock = clock
        self._me = me
        self._seen: dict[NodeID, tuple[int, float]] = {}
        self._heard: set[NodeID] = set()
        self._commits: deque[float] = deque(maxlen=REMEMBERED)
        self._written: deque[tuple[int, float]] = deque(maxlen=REMEMBERED)
        """Revisions of own beats that the mirror had not shown, and when each was begun."""
        self._known_at = -math.inf

    @property
    def commits_s(self) -> tuple[float, ...]:
        """How long the last beats took to be stored: what the disks and the network give."""
        return tuple(self._commits)

    @property
    def known_s_ago(self) -> float:
        """The mirror shows all that was stored at least this long ago: it shows a beat of ours begun then."""
        while self._written and self._written[0][0] <= self._store.revision:
            self._known_at = self._written.popleft()[1]
        return self._clock.monotonic() - self._known_at

    def is_reachable(self, node_id: NodeID) -> bool:
        """Whether the manager has beaten lately; one never heard of gets the benefit of the doubt."""
        self._look(node_id)
        return self._clock.monotonic() - self._seen[node_id][1] < SILENT_FOR_S

    def has_gone(self, node_id: NodeID) -> bool:
        """Whether the manager has been silent for so long that nodes booked with it are lost, too."""
        if node_id == self._me:
            return False
        self._look(node_id)
        limit_s = GONE_AFTER_S if node_id in self._heard else STARTING_FOR_S
        return self._clock.monotonic() - self._seen[node_id][1] >= limit_s

    async def run(self) -> None:
        """Beat until cancelled."""
        count, was_deaf = 0, False
        while True:
            count += 1
            began = self._clock.monotonic()
            try:
                async with asyncio.timeout(BEAT_EVERY_S):
                    said = " ".join((str(count), *self._ring.names)).encode()
                    revision = await self._store.write_raw((), (Put(keys.MANAGERS + self._me, said),))
            except (Unavailable, TimeoutError) as error:
                log.info("beat.unwritten", reason=str(error))
            else:
                if revision is not None:
                    self._written.append((revision, began))
            took = self._clock.monotonic() - began
            self._commits.append(took)
            if took < BEAT_EVERY_S:
                await asyncio.sleep(BEAT_EVERY_S)
            is_deaf = self._store.silent_for_s > DEAF_AFTER_S
            self._look_at_all(anew=was_deaf or is_deaf)
            was_deaf = is_deaf

    def _look_at_all(self, *, anew: bool) -> None:
        """`anew`: this manager heard nobody for a while, so nobody's silence counts."""
        if anew:
            self._seen.clear()
        for node in self._store.view.list(Node):
            if node.manager_status is not None:
                self._look(node.id)

    def _look(self, node_id: NodeID) -> None:
        beat = self._store.raw(keys.MANAGERS + node_id)
        revision = beat.mod_revision if beat else 0
        known = self._seen.get(node_id)
        if known is not None and known[0] != revision:
            self._heard.add(node_id)
        if known is None or known[0] != revision:
            self._seen[node_id] = (revision, self._clock.monotonic())
