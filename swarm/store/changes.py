"""What changed in the store since a component last looked.

Changes are coalesced by object (first old value, latest new one), so a slow reader costs no memory beyond
one entry an object, and nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swarm.model.objects import StoredObject

ObjectKey = tuple[type[StoredObject], str]


@dataclass(frozen=True, slots=True)
class Change:
    old: StoredObject | None
    """None: it did not exist."""
    new: StoredObject | None
    """None: it is gone."""


@dataclass(frozen=True, slots=True)
class Written:
    """One write to the store, in its place among all others."""

    revision: int
    key: str
    change: Change


@dataclass(frozen=True, slots=True)
class LeaderWritten:
    """The leader's key changed: node ids, empty for nobody."""

    revision: int
    key: str
    old: str
    new: str


Listener = Callable[[Sequence[Written | LeaderWritten], bool], None]
"""Told of every write in the order of revisions; False: there were others before these, which nobody saw."""


class Changes:
    def __init__(self, kinds: frozenset[type[StoredObject]]) -> None:
        self._kinds = kinds
        self._pending: dict[ObjectKey, Change] = {}
        self._some = asyncio.Event()

    def record(self, key: ObjectKey, old: StoredObject | None, new: StoredObject | None) -> None:
        """Called by the store's mirror, in the order of the writes."""
        if self._kinds and key[0] not in self._kinds:
            return
        known = self._pending.get(key)
        self._pending[key] = Change(known.old if known else old, new)
        self._some.set()

    async def wait(self) -> Mapping[ObjectKey, Change]:
        """What changed since the last call; waits for a change when there is none."""
        await self._some.wait()
        return self.take()

    async def settle(self, quiet_s: float, limit_s: float) -> Mapping[ObjectKey, Change]:
        """Like `wait`, then goes on collecting until nothing came for `quiet_s`, for `limit_s` at most."""
        await self._some.wait()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while (left := deadline - loop.time()) > 0:
            self._some.clear()
            try:
                async with asyncio.timeout(min(quiet_s, left)):
                    await self._some.wait()
            except TimeoutError:
                break
        return self.take()

    def take(self) -> Mapping[ObjectKey, Change]:
        """What changed since the last call, without waiting."""
        taken, self._pending = self._pending, {}
        self._some.clear()
        return taken
