"""Revisions that go on where a former store's ended, over a key-value service that counts from the start.

In: a service in whose key `/swarm/base` the former store's last revision was written, if there was one.
Out: the same service, with that number added to all its revisions. So neither a version that a client has
kept nor a leader's epoch of before can be one of now, and both go on rising.
Invariant: the base is written before anything else is, and never changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from swarm.base.errors import Unavailable
from swarm.store import keys
from swarm.store.kv import KV, Compare, KeyValue, Listing, Put, TxnResult, WatchBatch, Write

MARGIN = 1_000_000_000
"""More than the former store can have written beyond what is known of it: 11 days of 1000 a second."""
NEVER = -1
"""A revision that no key has."""


async def continue_after(kv: KV, revision: int) -> None:
    """Have the empty service's revisions go on after `revision`, of which it may have missed some later ones.

    Raises: Unavailable.
    """
    base = str(revision + MARGIN).encode()
    if not (await kv.txn([Compare(keys.BASE, 0)], [Put(keys.BASE, base)])).succeeded:
        raise Unavailable("the new store is not empty; see swarmd's log")


class ContinuedKV:
    def __init__(self, kv: KV) -> None:
        """The base is read with the first call."""
        self._kv = kv
        self._known: int | None = None

    async def list(self, prefix: str) -> Listing:
        base, found = await self._base(), await self._kv.list(prefix)
        return Listing(found.revision + base, tuple(_raised(item, base) for item in found.items))

    async def revision(self) -> int:
        return await self._base() + await self._kv.revision()

    async def get(self, key: str) -> KeyValue | None:
        base, found = await self._base(), await self._kv.get(key)
        return _raised(found, base) if found else None

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write]) -> TxnResult:
        base = await self._base()
        result = await self._kv.txn([_lowered(compare, base) for compare in compares], writes)
        return TxnResult(result.succeeded, result.revision + base, result.failed)

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        base = await self._base()
        async for batch in self._kv.watch(prefix, start_revision - base):
            puts = tuple(_raised(item, base) for item in batch.puts)
            yield WatchBatch(batch.revision + base, puts, batch.deletes)

    async def compact(self, revision: int) -> None:
        await self._kv.compact(revision - await self._base())

    async def _base(self) -> int:
        if self._known is None:
            found = await self._kv.get(keys.BASE)
            self._known = int(found.value) if found else 0
        return self._known


def _raised(item: KeyValue, base: int) -> KeyValue:
    return KeyValue(item.key, item.value, item.mod_revision + base)


def _lowered(compare: Compare, base: int) -> Compare:
    """0 stays 0, for a key that must not exist; a revision of the former store is none of this one."""
    if compare.mod_revision == 0:
        return compare
    return Compare(compare.key, compare.mod_revision - base if compare.mod_revision > base else NEVER)
