"""A store in memory: versions, unique names and all-or-nothing commits, as the real one has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from swarm.base.clock import Clock
from swarm.base.errors import AlreadyExists, OutOfSequence
from swarm.model.objects import Cluster, Config, Network, Secret, Service, StoredObject
from swarm.model.plan import Create, Crossing, Delete, Op
from swarm.model.types import Version
from swarm.model.view import Objects
from swarm.store import keys
from swarm.store.changes import Changes

INDEXED = (Service, Network, Cluster, Secret, Config)


class FakeStore:
    def __init__(self, clock: Clock, items: Iterable[StoredObject] = ()) -> None:
        self.view = Objects()
        self.revision = 0
        self.commits: list[tuple[Op, ...]] = []
        self.written = asyncio.Event()
        """Set by the first commit."""
        self._clock = clock
        self._feeds: list[Changes] = []
        for item in items:
            self.put(item)

    @contextmanager
    def changes(self, *kinds: type[StoredObject]) -> Iterator[Changes]:
        feed = Changes(frozenset(kinds))
        self._feeds.append(feed)
        try:
            yield feed
        finally:
            self._feeds.remove(feed)

    def put(self, item: Any) -> Any:
        """Write from outside, as another manager would."""
        self.revision += 1
        return self._keep(item)

    def _keep(self, item: Any) -> Any:
        stored = self._stamped(item)
        former = self.view.stored(type(item), item.id)
        self.view.put(stored)
        for feed in self._feeds:
            feed.record((type(item), item.id), former, stored)
        return stored

    async def apply(self, ops) -> int:
        """Nobody races here."""
        for op in ops:
            await self.commit([op])
        return len(ops)

    async def sync(self) -> None:
        """Always current: there is one writer."""

    async def commit(self, ops: Sequence[Op], *, crossing: Crossing | None = None) -> int:
        assert len(ops) <= 100
        for op in ops:
            self._check(op)
        self.revision += 1
        for op in ops:
            if isinstance(op, Delete):
                self.view.remove(type(op.object), op.object.id)
            else:
                self._keep(op.object)
        self.commits.append(tuple(ops))
        self.written.set()
        return self.revision

    def _check(self, op: Op) -> None:
        stored = self.view.stored(type(op.object), op.object.id)
        if not isinstance(op, Delete):
            held = keys.claims(stored) if stored else frozenset()
            for key in sorted(keys.claims(op.object) - held):
                if key in self._taken():
                    raise AlreadyExists(keys.taken(key))
        if isinstance(op, Create):
            if stored is not None:
                raise AlreadyExists(f"{op.object.id} already exists")
        elif stored is None or stored.meta.version != op.object.meta.version:
            raise OutOfSequence

    def _taken(self) -> frozenset[str]:
        """The names and ports in use."""
        return frozenset(
            key for kind in INDEXED for item in self.view.list(kind) for key in keys.claims(item)
        )

    def _stamped(self, item: Any) -> Any:
        now = self._clock.now()
        meta = replace(
            item.meta,
            version=Version(index=self.revision),
            created_at=item.meta.created_at or now,
            updated_at=now,
        )
        return replace(item, meta=meta)
