"""Who leads. Leadership is the key `/swarm/leader`; its revision is the leader's epoch, and every write of
the leader compares it, so a deposed leader cannot write whatever it believes.

The leader rewrites the beat every `BEAT_EVERY_S`. A manager that has seen no new beat for `SILENT_FOR_S` by
its own monotonic clock takes over in one transaction that compares both keys. `decide` is the pure part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from swarm.base.aio import in_own_task
from swarm.base.clock import Clock
from swarm.base.errors import LeadershipLost, Unavailable
from swarm.base.failpoint import failpoint
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.store import keys
from swarm.store.kv import Compare, KeyValue, Put
from swarm.store.kv import Delete as DeleteKey
from swarm.store.store import Store

BEAT_EVERY_S = 0.5
SILENT_FOR_S = 2.0
LOOK_EVERY_S = 0.1

log = get_logger("election")


class Action(StrEnum):
    FOLLOW = "follow"
    TAKE_OVER = "take over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a manager that does not lead sees."""

    holder: str | None
    """Node id in the leader key; None when there is no key."""
    silent_for_s: float
    """Since it first saw the present beat."""


def decide(me: NodeID, seen: Observation) -> Action:
    """Take over an empty seat, one's own from before a restart, and one whose holder has fallen silent."""
    if seen.holder is None or seen.holder == me or seen.silent_for_s >= SILENT_FOR_S:
        return Action.TAKE_OVER
    return Action.FOLLOW


class Election:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        me: NodeID,
        lead: Callable[[int], Awaitable[None]],
        may_lead: Callable[[], bool] = lambda: True,
    ) -> None:
        """`lead(epoch)` runs while this manager leads and is cancelled when it no longer does.

        A manager that is to be demoted, or whose data are damaged, may not lead: it gives the seat up and
        does not run for it.
        """
        self._store = store
        self._clock = clock
        self._me = me
        self._lead = lead
        self._may_lead = may_lead
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch in which this manager leads now; None when it does not."""
        return self._epoch

    async def run(self) -> None:
        await self._store.ready()
        while True:
            epoch = await self._campaign()
            log.info("leader.elected", epoch=epoch)
            failpoint("leader.elected")
            try:
                self._epoch = epoch
                await in_own_task(self._beat_and_lead(epoch))
            except* LeadershipLost as lost:
                log.warning("leader.lost", epoch=epoch, reason=str(lost.exceptions[0]))
            finally:
                self._epoch = None
                failpoint("leader.resigning")
                await self._resign(epoch)

    async def _beat_and_lead(self, epoch: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(epoch))
            group.create_task(self._run_lead(epoch))

    async def _run_lead(self, epoch: int) -> None:
        await self._lead(epoch)
        raise LeadershipLost("the leader's work has ended")

    async def _campaign(self) -> int:
        beat_revision, since = -1, self._clock.monotonic()
        while True:
            leader, beat = self._store.raw(keys.LEADER), self._store.raw(keys.LEADER_BEAT)
            if _revision(beat) != beat_revision:
                beat_revision, since = _revision(beat), self._clock.monotonic()
            holder = leader.value.decode() if leader else None
            seen = Observation(holder=holder, silent_for_s=self._clock.monotonic() - since)
            if self._may_lead() and decide(self._me, seen) is Action.TAKE_OVER:
                epoch = await self._take_over(leader, beat)
                if epoch is not None:
                    return epoch
            await asyncio.sleep(LOOK_EVERY_S)

    async def _take_over(self, leader: KeyValue | None, beat: KeyValue | None) -> int | None:
        compares = (Compare(keys.LEADER, _revision(leader)), Compare(keys.LEADER_BEAT, _revision(beat)))
        writes = (Put(keys.LEADER, self._me.encode()), Put(keys.LEADER_BEAT, b"0"))
        try:
            return await self._store.write_raw(compares, writes)
        except Unavailable:
            return None

    async def _beat(self, epoch: int) -> None:
        written = self._clock.monotonic()
        count = 0
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            if not self._may_lead():
                raise LeadershipLost("this manager is to be demoted, or its data are damaged")
            count += 1
            try:
                async with asyncio.timeout(SILENT_FOR_S):
                    revision = await self._store.write_raw(
                        # No two beats are equal, so that a lost answer can be looked up.
                        (Compare(keys.LEADER, epoch),),
                        (Put(keys.LEADER_BEAT, f"{epoch}.{count}".encode()),),
                    )
            except (Unavailable, TimeoutError):
                if self._clock.monotonic() - written > SILENT_FOR_S:
                    raise LeadershipLost("the store has not taken a beat in time") from None
                continue
            if revision is None:
                raise LeadershipLost("another manager leads")
            written = self._clock.monotonic()

    async def _resign(self, epoch: int) -> None:
        """Give the seat up at once, so that nobody need wait for silence; best effort."""
        try:
            async with asyncio.timeout(1.0):
                await self._store.write_raw((Compare(keys.LEADER, epoch),), (DeleteKey(keys.LEADER),))
        except (Unavailable, TimeoutError):
            log.info("leader.resign.unsent", epoch=epoch)


def _revision(item: KeyValue | None) -> int:
    return item.mod_revision if item else 0
