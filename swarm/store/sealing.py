"""Objects and their names as the store keeps them: sealed, under keys that tell nothing.

In: operations, and sealed values. Out: the transactions that write the ones, and what the others hold.
`/swarm/data-key` says which data key seals; every write is compared with its revision, so none is sealed
with a key that no longer does. While the cluster moves to another key both open, a new name or port is free
only if neither key's claim is there, and `reseal` moves an object with its claims.
Invariant: once no value and no claim of the former key is left, none can appear again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from swarm.model.objects import StoredObject
from swarm.model.plan import Create, Delete, Op, Update
from swarm.model.types import Version
from swarm.model.view import Objects
from swarm.proto import codec
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.kv import Compare, KeyValue, Put, Write
from swarm.store.kv import Delete as DeleteKey
from swarm.store.txns import Txn

CLAIMS_MOVED = 40
"""Claims of one object that are moved in one transaction: two operations each."""
UNMADE = "unmade"
"""The name of a key to come that the leader has not made yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKeys:
    """Which data keys are in use, by name. Kept in the clear under `/swarm/data-key`."""

    sealing: str
    """What is written is sealed with it."""
    coming: str = ""
    """Every manager is to have it before it seals."""
    going: str = ""
    """It sealed before; what it has sealed is being sealed anew."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def decode_data_keys(value: bytes) -> DataKeys:
    return DataKeys(**json.loads(value))


class Sealing:
    def __init__(self, ring: Keyring, raw: Mapping[str, KeyValue], objects: Objects) -> None:
        """`raw` and `objects` are the mirror: it fills them."""
        self._ring = ring
        self._raw = raw
        self._objects = objects
        self._sealed_by: dict[str, str] = {}
        self._read: tuple[KeyValue, DataKeys] | None = None
        self._blinded: dict[tuple[str, str], str] = {}
        """(key's name, claim) -> where it is; for the keys in use."""

    @property
    def keys(self) -> DataKeys:
        """A store that has never changed its key says nothing of it."""
        stored = self._raw.get(keys.DATA_KEY)
        if stored is None:
            return DataKeys(sealing=self._ring.names[0])
        if self._read is None or self._read[0] is not stored:
            self._read = stored, decode_data_keys(stored.value)
            self._blinded.clear()
        return self._read[1]

    @property
    def fence(self) -> Compare:
        """Holds while `keys` are those in use."""
        stored = self._raw.get(keys.DATA_KEY)
        return Compare(keys.DATA_KEY, stored.mod_revision if stored else 0)

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self._sealed_by)

    def open(self, kind: type[StoredObject], item: KeyValue) -> StoredObject:
        """Raises: Unsealable, DecodeError, UnicodeDecodeError."""
        name, plain = self._ring.open(item.key, item.value)
        value: Any = codec.loads(kind, plain)
        self._sealed_by[item.key] = name
        meta = dataclasses.replace(value.meta, version=Version(index=item.mod_revision))
        found: StoredObject = dataclasses.replace(value, meta=meta)
        return found

    def forget(self, key: str) -> None:
        self._sealed_by.pop(key, None)

    def encode(self, op: Op, now: datetime) -> Txn:
        """Raises: Unavailable when this manager lacks the key that seals."""
        item = op.object
        key = keys.object_key(type(item), item.id)
        claimed, held = keys.claims(item), frozenset[str]()
        match op:
            case Create():
                expected = 0
            case Update() | Delete():
                expected = item.meta.version.index
                stored = self._objects.stored(type(item), item.id)
                held = keys.claims(stored) if stored else held
        if isinstance(op, Delete):
            freed: list[Write] = [DeleteKey(key), *(DeleteKey(k) for k in self._everywhere(held))]
            return Txn((Compare(key, expected),), tuple(freed))
        stamped = _stamp(item, now, created=isinstance(op, Create))
        return Txn(
            (Compare(key, expected), *(Compare(k, 0) for k in self._everywhere(claimed - held))),
            (
                self._sealed(key, stamped),
                *(Put(self._claim_key(c), item.id.encode()) for c in sorted(claimed - held)),
                *(DeleteKey(k) for k in self._everywhere(held - claimed)),
            ),
        )

    def claims_in(self, claim: str, failed: frozenset[str]) -> bool:
        """Whether a claim is among keys whose compare failed."""
        return not failed.isdisjoint(self._everywhere({claim}))

    def list_aged(self) -> list[StoredObject]:
        """What is sealed, or has a claim that is hashed, with another key than the present one."""
        present, aged = self.keys, []
        for key, name in self._sealed_by.items():
            place = keys.parse_object_key(key)
            stored = self._objects.stored(*place) if place else None
            if stored is not None and (name != present.sealing or self._claims_behind(stored)):
                aged.append(stored)
        return aged

    def reseal(self, item: StoredObject) -> Iterator[Txn]:
        """What moves an object to the present key, claims first; nothing but its version changes."""
        key = keys.object_key(type(item), item.id)
        same = (Compare(key, item.meta.version.index),)
        behind = self._claims_behind(item)
        for start in range(0, len(behind), CLAIMS_MOVED):
            some = behind[start : start + CLAIMS_MOVED]
            yield Txn(same, tuple(write for claim in some for write in self._moved(claim, item.id)))
        yield Txn(same, (self._sealed(key, item),))

    def _sealed(self, key: str, item: Any) -> Put:  # noqa: ANN401 - any stored object
        return Put(key, self._ring.box(self.keys.sealing).seal(key, codec.dumps(item)))

    def _moved(self, claim: str, object_id: str) -> tuple[Write, Write]:
        return Put(self._claim_key(claim), object_id.encode()), DeleteKey(self._former_key(claim))

    def _claims_behind(self, item: StoredObject) -> list[str]:
        if not self.keys.going:
            return []
        return [claim for claim in sorted(keys.claims(item)) if self._former_key(claim) in self._raw]

    def _claim_key(self, claim: str) -> str:
        return self._place(self.keys.sealing, claim)

    def _former_key(self, claim: str) -> str:
        return self._place(self.keys.going, claim)

    def _place(self, key_name: str, claim: str) -> str:
        if not self.keys.going:
            return keys.CLAIMS + self._ring.box(key_name).blind(claim)
        found = self._blinded.get((key_name, claim))
        if found is None:
            found = keys.CLAIMS + self._ring.box(key_name).blind(claim)
            self._blinded[key_name, claim] = found
        return found

    def _everywhere(self, claims: frozenset[str] | set[str]) -> list[str]:
        """Where a claim may be found: under the present key, and the former one while that is in use."""
        found = [self._claim_key(claim) for claim in sorted(claims)]
        if self.keys.going:
            found += [self._former_key(claim) for claim in sorted(claims)]
        return found


def _stamp(item: Any, now: datetime, *, created: bool) -> Any:  # noqa: ANN401 - any stored object
    meta = dataclasses.replace(item.meta, updated_at=now, **({"created_at": now} if created else {}))
    return dataclasses.replace(item, meta=meta)
