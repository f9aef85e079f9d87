"""One manager's events: fed by its store, read by any number of readers.

Readers hold a place in the ring and no queue of their own, so a slow one costs no memory: it hears of a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime

from swarm.base.clock import Clock
from swarm.manager.events.derive import events_of
from swarm.manager.events.ring import EventRing, Since
from swarm.model.events import GAP, Event
from swarm.store.changes import LeaderWritten, Written
from swarm.store.store import Store


class EventFeed:
    def __init__(self, store: Store, clock: Clock) -> None:
        """The store's mirror has been filled."""
        self._store = store
        self._clock = clock
        self._ring = EventRing(store.revision, clock.now())
        self._fresh = asyncio.Event()

    async def run(self) -> None:
        """Take what the store tells, until cancelled."""
        self._ring = EventRing(self._store.revision, self._clock.now())
        with self._store.listening(self._take):
            await asyncio.Event().wait()

    async def read(self, since: Since = None, until: datetime | None = None) -> AsyncIterator[Event]:
        """The events since then and those to come; until then, or without end."""
        cursor = self._ring.start(since, self._clock.now())
        while True:
            fresh, now = self._fresh, self._clock.now()
            events, cursor = self._ring.read(cursor, now)
            for event in events:
                if until is None or event.time <= until or event.action == GAP:
                    yield event
            if until is not None and until <= now:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(None if until is None else (until - now).total_seconds()):
                    await fresh.wait()

    def _take(self, writes: Sequence[Written | LeaderWritten], is_whole: bool) -> None:
        now = self._clock.now()
        if not is_whole:
            self._ring.lose(writes[0].revision, now)
        for write in writes:
            self._ring.append(events_of(write, self._store.view, now))
        fresh, self._fresh = self._fresh, asyncio.Event()
        fresh.set()
