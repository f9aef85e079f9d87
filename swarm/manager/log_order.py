"""Lines of several tasks in the order of their times, as far as that can be known while they arrive. Pure.

Lines come in each task's order, but from different hosts at different speeds. They are held until everybody
had time to send older ones: without following, until all have come; while following, for a moment.
Invariants: no line is held longer than its patience; no more than `LIMIT` lines and `LIMIT_BYTES` are held,
beyond that the oldest go; lines of one task never change their order, whatever their host's clock did.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

LIMIT = 10_000
LIMIT_BYTES = 32 << 20
FIRST_PATIENCE_S = 0.5
"""For what was there before: every host has to be asked first."""
PATIENCE_S = 0.2


class Stamped(Protocol):
    @property
    def timestamp(self) -> datetime: ...

    @property
    def text(self) -> bytes: ...


L = TypeVar("L", bound=Stamped)


class LogOrder(Generic[L]):
    """Holds lines. Times are any monotonic count of seconds."""

    def __init__(self, *, is_followed: bool, now_s: float, limit: int = LIMIT) -> None:
        self._is_followed = is_followed
        self._began_s = now_s
        self._limit = limit
        self._heap: list[tuple[datetime, int, L]] = []
        self._arrivals: deque[tuple[float, int]] = deque()
        self._number = 0
        self._gone: set[int] = set()
        self._bytes = 0
        self._latest: dict[str, datetime] = {}

    def add(self, task_id: str, line: L, now_s: float) -> list[L]:
        """Take a line in; what has to go now, since there is no more room."""
        at = max(line.timestamp, self._latest.get(task_id, line.timestamp))
        self._latest[task_id] = at
        heappush(self._heap, (at, self._number, line))
        self._bytes += len(line.text)
        if self._is_followed:
            patient_until = max(now_s + PATIENCE_S, self._began_s + FIRST_PATIENCE_S)
            self._arrivals.append((patient_until, self._number))
        self._number += 1
        found: list[L] = []
        while len(self._heap) > self._limit or self._bytes > LIMIT_BYTES:
            found.append(self._pop())
        return found

    def due(self, now_s: float) -> list[L]:
        """What has been held long enough, and what is older than that."""
        found: list[L] = []
        while self._arrivals and (self._arrivals[0][0] <= now_s or self._arrivals[0][1] in self._gone):
            _, number = self._arrivals.popleft()
            while number not in self._gone:
                found.append(self._pop())
            self._gone.discard(number)
        return found

    def deadline_s(self) -> float | None:
        """When `due` will give something; None while it is not known."""
        return self._arrivals[0][0] if self._arrivals else None

    def rest(self) -> list[L]:
        """Everything that is left: nothing more will come."""
        return [self._pop() for _ in range(len(self._heap))]

    def _pop(self) -> L:
        _, number, line = heappop(self._heap)
        self._bytes -= len(line.text)
        if self._is_followed:
            self._gone.add(number)
        return line
