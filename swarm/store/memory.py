"""A key-value service in memory: the verified fake of etcd, for tests without processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from swarm.store.kv import Compare, Delete, KeyValue, Listing, Put, TxnResult, WatchBatch, WatchLost, Write


class MemoryKV:
    def __init__(self) -> None:
        self._items: dict[str, KeyValue] = {}
        self._revision = 1
        self._history: list[WatchBatch] = []
        self._compacted = 0
        self._changed = asyncio.Condition()

    async def list(self, prefix: str) -> Listing:
        found = sorted(
            (kv for kv in self._items.values() if kv.key.startswith(prefix)), key=lambda kv: kv.key
        )
        return Listing(self._revision, tuple(found))

    async def revision(self) -> int:
        return self._revision

    async def get(self, key: str) -> KeyValue | None:
        return self._items.get(key)

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write]) -> TxnResult:
        failed = tuple(c.key for c in compares if self._mod_revision(c.key) != c.mod_revision)
        if failed:
            return TxnResult(False, self._revision, failed)
        async with self._changed:
            self._write(writes)
            self._changed.notify_all()
        return TxnResult(True, self._revision)

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        after = start_revision - 1
        while True:
            if after < self._compacted:
                raise WatchLost(f"revision {start_revision} has been compacted")
            for batch in [b for b in self._history if b.revision > after]:
                after = batch.revision
                puts = tuple(kv for kv in batch.puts if kv.key.startswith(prefix))
                deletes = tuple(kv for kv in batch.deletes if kv.key.startswith(prefix))
                if puts or deletes:
                    yield WatchBatch(batch.revision, puts, deletes)
            async with self._changed:
                if self._revision == after:
                    await self._changed.wait()
                elif not any(b.revision > after for b in self._history):
                    after = self._revision

    async def compact(self, revision: int) -> None:
        self._compacted = revision
        self._history = [b for b in self._history if b.revision > revision]

    def _mod_revision(self, key: str) -> int:
        item = self._items.get(key)
        return item.mod_revision if item else 0

    def _write(self, writes: Sequence[Write]) -> None:
        revision = self._revision + 1
        puts: list[KeyValue] = []
        deletes: list[KeyValue] = []
        for write in writes:
            match write:
                case Put(key=key, value=value):
                    puts.append(KeyValue(key, value, revision))
                    self._items[key] = puts[-1]
                case Delete(key=key):
                    if self._items.pop(key, None) is not None:
                        deletes.append(KeyValue(key, b"", revision))
        if puts or deletes:
            self._revision = revision
            self._history.append(WatchBatch(revision, tuple(puts), tuple(deletes)))
