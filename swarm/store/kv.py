"""What the store needs from a replicated key-value service. `memory.py` and `etcd.py` both provide it, and
`tests/contract/test_kv.py` holds them to the same promises:

- a transaction is all or nothing and strictly serialisable; it succeeds only if every compare holds;
- a failed transaction names the keys whose compare failed;
- every successful write gets a revision greater than all before it, shared by all keys of its transaction;
- `watch` delivers every change under the prefix from a revision on, in order, a transaction never split;
- what a transaction acknowledged is never lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.base.errors import Unavailable


class WatchLost(Unavailable):
    """The watch cannot go on from where it was: list again and watch from there."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    key: str
    value: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds when the key's last write has this revision; 0 means that the key does not exist."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class TxnResult:
    succeeded: bool
    revision: int
    failed: tuple[str, ...] = ()
    """Keys whose compare did not hold."""


@dataclass(frozen=True, slots=True)
class Listing:
    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes up to `revision`. What is deleted has no value, and the revision that deleted it."""

    revision: int
    puts: tuple[KeyValue, ...]
    deletes: tuple[KeyValue, ...]


class KV(Protocol):
    """All calls raise `Unavailable` when the service cannot answer; a write's outcome is then unknown."""

    async def list(self, prefix: str) -> Listing: ...

    async def revision(self) -> int:
        """The last revision that a quorum has acknowledged by now."""
        ...

    async def get(self, key: str) -> KeyValue | None: ...

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write]) -> TxnResult: ...

    def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]: ...

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`; watches that start earlier raise `WatchLost`."""
        ...
