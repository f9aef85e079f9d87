"""The last events, kept for those who come or come back: a bounded ring, and how far each reader has come.

In: events in the order of their positions. Out: for a reader, the events after where it stands, and word of
a gap when what it missed has left the ring. Invariant: a reader gets each event once, in order, or a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from swarm.model.events import GAP, Event, Position, whole_revision

CAPACITY = 16_384

Since = Position | datetime | None
"""Where a reader begins: after what it has heard, at a time, or now."""


class EventRing:
    def __init__(self, revision: int, now: datetime, capacity: int = CAPACITY) -> None:
        """`revision` and `now` are those of the beginning: what was before is not known here."""
        self._events: deque[Event] = deque(maxlen=capacity)
        self._floor = whole_revision(revision)
        self._floor_time = now
        self._count = 0
        """How many events there have ever been: the number of the next one."""

    def append(self, events: Iterable[Event]) -> None:
        for event in events:
            if len(self._events) == self._events.maxlen:
                self._floor, self._floor_time = self._events[0].position, self._events[0].time
            self._events.append(event)
            self._count += 1

    def lose(self, revision: int, now: datetime) -> None:
        """Something happened up to `revision` that nobody saw: say so to all who read past it."""
        self.append((_gap(Position(revision), now),))

    def start(self, since: Since, now: datetime) -> Cursor:
        """Where a new reader begins; a gap comes first if its past is not all here."""
        match since:
            case Position():
                missed = since < self._floor
                heard = (event.position <= since for event in self._events)
            case datetime():
                missed = since < self._floor_time
                heard = (event.time < since for event in self._events)
            case None:
                return Cursor(self._count, ())
        index = next((i for i, is_heard in enumerate(heard) if not is_heard), len(self._events))
        return Cursor(self._first() + index, (_gap(self._floor, now),) if missed else ())

    def read(self, cursor: Cursor, now: datetime) -> tuple[Sequence[Event], Cursor]:
        """What is there after `cursor`, and where the reader stands then."""
        first = self._first()
        missed = (_gap(self._floor, now),) if cursor.number < first else ()
        fresh = islice(self._events, max(0, cursor.number - first), None)
        return (*cursor.before, *missed, *fresh), Cursor(self._count, ())

    def _first(self) -> int:
        return self._count - len(self._events)


@dataclass(frozen=True, slots=True)
class Cursor:
    number: int
    before: tuple[Event, ...]


def _gap(position: Position, now: datetime) -> Event:
    return Event(
        position=position,
        time=now,
        type="cluster",
        action=GAP,
        id="",
        attributes={"message": "this manager does not know all that happened before; list the objects again"},
    )
