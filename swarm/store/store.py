"""The cluster's state: a mirror in memory to read, transactions to write.

Reads: `view` is the mirror. It is listed once at a revision and watched from there; watches are hints, so
every `RELIST_EVERY_S` the whole is listed again and the difference applied.
Writes: `commit` is one transaction, all or nothing, each op compared with the version it was decided on;
`apply` takes a plan of any size and drops the ops that lost. Both return when the mirror shows the write, so
a caller reads what it wrote. A leader's writes carry its epoch and fail once another manager leads.
A value that does not open means that this manager's copy is damaged: the mirror stands still then, as it
does without a quorum, and `damage` says why.
Invariant: the mirror never goes back to an older version of an object.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import DecodeError

from swarm.base.clock import Clock
from swarm.base.errors import (
    AlreadyExists,
    InvalidArgument,
    LeadershipLost,
    OutOfSequence,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.model.objects import StoredObject
from swarm.model.plan import Create, Crossing, Op
from swarm.model.view import ClusterView, Objects
from swarm.secrets.box import Unsealable
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.changes import Change, Changes, LeaderWritten, Listener, Written
from swarm.store.kv import KV, Compare, KeyValue, Put, WatchBatch, WatchLost, Write
from swarm.store.sealing import Sealing
from swarm.store.txns import TXN_BYTES, TXN_OPS, Part, Txn, chunks, joined

RELIST_EVERY_S = 60.0
WATCH_AGAIN_S = 0.05
"""After a watch was lost: a member that refuses each one at once is not asked without a pause."""
MIRROR_TIMEOUT_S = 5.0
DAMAGED_RETRY_S = 5.0
ASK_AGAIN_FOR_S = 1.5
"""With one more answer of etcd, which may take three seconds: a user hears within five seconds in all."""
ASK_AGAIN_EVERY_S = 0.1
LOOK_UP_S = 1.5
"""For finding out what became of a write: a user who waits for it hears within five seconds in all."""
SEAL_TRIES = 3
"""How often a write is made anew because the data key changed meanwhile."""
UNSEEN = "the write is stored, but this manager has not seen it yet; try again"
BEHIND = "this manager's copy of the swarm's state is behind; try again, or ask another manager"
FENCES = 2
"""Compares of every transaction: the leader's key and the data keys'."""

T = TypeVar("T")
Key = tuple[type[StoredObject], str]

log = get_logger("store")


class Store:
    def __init__(self, kv: KV, ring: Keyring, clock: Clock) -> None:
        self._kv = kv
        self._clock = clock
        self._objects = Objects()
        self._raw: dict[str, KeyValue] = {}
        self.sealing = Sealing(ring, self._raw, self._objects)
        """How objects are kept, and which data keys they are sealed with."""
        self._revision = 0
        self._moved = asyncio.Condition()
        self._heard = clock.monotonic()
        self._feeds: set[Changes] = set()
        self._listeners: list[Listener] = []
        self.damage = ""
        """Which stored value this manager cannot read; empty for none."""

    @property
    def view(self) -> ClusterView:
        return self._objects

    @property
    def revision(self) -> int:
        """How far the mirror has come; 0 before the first list."""
        return self._revision

    @property
    def silent_for_s(self) -> float:
        """Since the mirror moved last. Managers beat every second: a longer silence means no quorum here."""
        return self._clock.monotonic() - self._heard

    def raw(self, key: str) -> KeyValue | None:
        """A key of ours that is no object (leader, beat)."""
        return self._raw.get(key)

    async def raw_there(self, key: str) -> KeyValue:
        """`raw`, once the key is there."""
        async with self._moved:
            await self._moved.wait_for(lambda: key in self._raw)
            return self._raw[key]

    async def sync(self) -> None:
        """Bring the mirror up to what a quorum has acknowledged by now: reads after it are linearisable.

        An etcd that has just died is there again after a second or two, so it is asked again for so long.
        Raises: Unavailable when no quorum answers.
        """
        last_try = asyncio.get_running_loop().time() + ASK_AGAIN_FOR_S
        while True:
            try:
                await self._shown(await self._kv.revision(), BEHIND)
            except Unavailable:
                if asyncio.get_running_loop().time() >= last_try:
                    raise
                await asyncio.sleep(ASK_AGAIN_EVERY_S)
            else:
                return

    @contextmanager
    def changes(self, *kinds: type[StoredObject]) -> Iterator[Changes]:
        """A feed of what changes from now on, coalesced by object; of the given kinds, or of all."""
        feed = Changes(frozenset(kinds))
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """`listener` is told of each write from now on, one by one, when the mirror shows it."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def ready(self) -> None:
        """Wait until the mirror has been filled once."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._revision > 0)

    async def run(self) -> None:
        """Keep the mirror true until cancelled."""
        backoff = 0.05
        while True:
            try:
                await self._relist()
                self.damage, backoff = "", 0.05
                await self._follow()
            except WatchLost as error:
                log.info("watch.lost", reason=str(error))
                await asyncio.sleep(WATCH_AGAIN_S)
            except (Unsealable, DecodeError, UnicodeDecodeError) as error:
                self.damage = str(error)
                log.error("store.damaged", reason=self.damage)
                await asyncio.sleep(DAMAGED_RETRY_S)
            except Unavailable as error:
                log.warning("store.unavailable", reason=str(error), retry_s=backoff)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, 2.0)

    async def commit(
        self, ops: Sequence[Op], *, epoch: int | None = None, crossing: Crossing | None = None
    ) -> int:
        """Write all of `ops` or nothing; returns the revision.

        With `crossing`, what was decided must have been so on the view of now: without an await in between.

        Raises:
            InvalidArgument: it is more than one transaction can hold.
            OutOfSequence: an object is not at the version that its op was decided on, or a commit crossed it.
            AlreadyExists: an object, name or port is taken.
            LeadershipLost: `epoch` is over.
            Unavailable: no quorum answered; whether the write happened is unknown.
        """
        now = self._clock.now()
        crossed = self._crossed(crossing)
        for _ in range(SEAL_TRIES):
            encoded = (self.sealing.encode(op, now) for op in ops)
            txn = joined((*encoded, *crossed), self._fences(epoch))
            if txn.weight > TXN_BYTES:
                raise InvalidArgument(
                    f"too large to be stored: {txn.weight} bytes, at most {TXN_BYTES} are possible"
                )
            failpoint("store.commit.before")
            failed, revision = await self._attempt(txn)
            failpoint("store.commit.after")
            if failed and failed != (keys.DATA_KEY,):
                raise self._refusal(failed, ops)
            await self._shown(revision)
            if not failed:
                return revision
        raise Unavailable("the swarm's data key is being changed; try again")

    async def apply(self, ops: Iterable[Op], *, epoch: int | None = None) -> int:
        """Write a plan in bounded transactions, dropping ops that lost a race; returns how many were written.

        Raises: LeadershipLost, Unavailable.
        """
        now = self._clock.now()
        return await self._write_parts(ops, lambda op: (self.sealing.encode(op, now),), epoch)

    async def reseal(self, items: Iterable[StoredObject], epoch: int) -> int:
        """Seal objects with the present data key, as they are; those that have changed since are left out.

        Returns how many transactions' worth was written. Raises: LeadershipLost, Unavailable.
        """
        return await self._write_parts(items, self.sealing.reseal, epoch)

    async def write_raw(self, compares: Sequence[Compare], writes: Sequence[Write]) -> int | None:
        """A transaction on keys that are no objects; its revision, or None if a compare failed."""
        failpoint("store.raw.before")
        failed, revision = await self._attempt(Txn(tuple(compares), tuple(writes)))
        failpoint("store.raw.after")
        return None if failed else revision

    async def catch_up(self, epoch: int) -> None:
        """After an `Unavailable` write of this epoch: return when the mirror shows it, if it happened at all.

        A beat is written behind it: what was under way before has happened by then, or never will.
        Raises: LeadershipLost, Unavailable.
        """
        beat = Put(keys.LEADER_BEAT, secrets.token_bytes(8))
        revision = await self.write_raw((Compare(keys.LEADER, epoch),), (beat,))
        if revision is None:
            raise LeadershipLost("another manager leads")
        await self._shown(revision)

    async def _write_parts(
        self, sources: Iterable[T], encode: Callable[[T], Iterable[Txn]], epoch: int | None
    ) -> int:
        written, revision = 0, 0
        parts = [Part(source, txn) for source in sources for txn in encode(source)]
        for chunk in chunks(parts, TXN_OPS - FENCES):
            done, at = await self._write_chunk(chunk, encode, epoch)
            written, revision = written + done, max(revision, at)
        if revision:
            await self._shown(revision)
        return written

    async def _write_chunk(
        self, chunk: list[Part[T]], encode: Callable[[T], Iterable[Txn]], epoch: int | None
    ) -> tuple[int, int]:
        while chunk:
            failpoint("store.apply.before")
            failed, revision = await self._attempt(joined((p.txn for p in chunk), self._fences(epoch)))
            failpoint("store.apply.after")
            if not failed:
                return len(chunk), revision
            if keys.LEADER in failed:
                raise LeadershipLost("another manager leads")
            if keys.DATA_KEY in failed:
                await self._shown(revision)
                sources = {id(part.source): part.source for part in chunk}.values()
                chunk = [Part(source, txn) for source in sources for txn in encode(source)]
                continue
            lost = set(failed)
            chunk = [part for part in chunk if lost.isdisjoint(c.key for c in part.txn.compares)]
        return 0, 0

    def _crossed(self, crossing: Crossing | None) -> tuple[Txn, ...]:
        """Two keys for all: it costs the same however much is named, and services do not cross each other."""
        if crossing is None:
            return ()
        ours, theirs = (keys.NAMED, keys.REMOVED)[:: 1 if crossing is Crossing.NAMES else -1]
        known = self._raw.get(theirs)
        compare = Compare(theirs, known.mod_revision if known else 0)
        return (Txn((compare,), (Put(ours, secrets.token_bytes(8)),)),)

    def _fences(self, epoch: int | None) -> tuple[Compare, ...]:
        return (*((Compare(keys.LEADER, epoch),) if epoch is not None else ()), self.sealing.fence)

    async def _attempt(self, txn: Txn) -> tuple[tuple[str, ...], int]:
        """(keys whose compare failed, revision). A lost answer is looked up: sealed bytes never repeat."""
        try:
            result = await self._kv.txn(txn.compares, txn.writes)
        except Unavailable:
            put = next((w for w in txn.writes if isinstance(w, Put)), None)
            if put is None:
                raise
            try:
                async with asyncio.timeout(LOOK_UP_S):
                    found = await self._kv.get(put.key)
            except TimeoutError:
                found = None
            if found is None or found.value != put.value:
                raise
            return (), found.mod_revision
        return result.failed, result.revision

    def _refusal(
        self, failed: Sequence[str], ops: Sequence[Op]
    ) -> AlreadyExists | OutOfSequence | LeadershipLost:
        if keys.LEADER in failed:
            return LeadershipLost("another manager leads")
        for claim in sorted(claim for op in ops for claim in keys.claims(op.object)):
            if self.sealing.claims_in(claim, frozenset(failed)):
                return AlreadyExists(keys.taken(claim))
        created = {keys.object_key(type(op.object), op.object.id) for op in ops if isinstance(op, Create)}
        if created >= set(failed):
            return AlreadyExists(f"{sorted(failed)[0]} already exists")
        return OutOfSequence()

    async def _shown(self, revision: int, otherwise: str = UNSEEN) -> None:
        try:
            async with asyncio.timeout(MIRROR_TIMEOUT_S), self._moved:
                await self._moved.wait_for(lambda: self._revision >= revision)
        except TimeoutError:
            raise Unavailable(otherwise) from None

    async def _relist(self) -> None:
        listing = await self._kv.list(keys.PREFIX)
        present = {item.key for item in listing.items}
        gone = tuple(KeyValue(key, b"", listing.revision) for key in self._raw if key not in present)
        self._take(WatchBatch(listing.revision, listing.items, gone), is_whole=False)
        await self._announce(listing.revision)

    async def _follow(self) -> None:
        try:
            async with asyncio.timeout(RELIST_EVERY_S):
                async for batch in self._kv.watch(keys.PREFIX, self._revision + 1):
                    self._take(batch)
                    await self._announce(batch.revision)
        except TimeoutError:
            return

    async def _announce(self, revision: int) -> None:
        async with self._moved:
            self._revision = max(self._revision, revision)
            self._heard = self._clock.monotonic()
            self._moved.notify_all()

    def _take(self, batch: WatchBatch, *, is_whole: bool = True) -> None:
        """Make the mirror show `batch`; not whole: it is a listing, and writes before it went unseen."""
        written: list[Written | LeaderWritten] = []
        for item in batch.puts:
            known = self._raw.get(item.key)
            if known is not None and known.mod_revision >= item.mod_revision:
                continue
            change = self._keep(item)
            written.extend(_leader_written(known, item))
            if change is not None:
                written.append(Written(item.mod_revision, item.key, change))
        for item in batch.deletes:
            written.extend(_leader_written(self._raw.get(item.key), item))
            if (change := self._forget(item)) is not None:
                written.append(Written(item.mod_revision, item.key, change))
        if written and self._listeners:
            written.sort(key=lambda write: (write.revision, write.key))
            for listener in self._listeners:
                listener(written, is_whole)

    def _keep(self, item: KeyValue) -> Change | None:
        place = keys.parse_object_key(item.key)
        if place is None:
            self._raw[item.key] = item
            return None
        value = self.sealing.open(place[0], item)
        self._raw[item.key] = KeyValue(item.key, b"", item.mod_revision)
        old = self._objects.put(value)
        for feed in self._feeds:
            feed.record(place, old, value)
        return Change(old, value)

    def _forget(self, item: KeyValue) -> Change | None:
        place = keys.parse_object_key(item.key)
        if self._raw.pop(item.key, None) is None or place is None:
            return None
        self.sealing.forget(item.key)
        old = self._objects.remove(*place)
        for feed in self._feeds:
            feed.record(place, old, None)
        return Change(old, None)


def _leader_written(known: KeyValue | None, item: KeyValue) -> tuple[LeaderWritten, ...]:
    if item.key != keys.LEADER:
        return ()
    old, new = known.value.decode() if known else "", item.value.decode()
    return (LeaderWritten(item.mod_revision, item.key, old, new),) if old != new else ()
