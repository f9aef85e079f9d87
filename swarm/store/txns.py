"""Transactions before they are sent: put together and cut to what etcd takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from swarm.store.kv import Compare, Put, Write

TXN_OPS = 100
"""etcd refuses more than 128 operations in one transaction."""
TXN_BYTES = 1024 * 1024
"""etcd refuses requests of more than 1.5 MiB."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Txn:
    compares: tuple[Compare, ...]
    writes: tuple[Write, ...]

    @property
    def weight(self) -> int:
        return sum(len(write.value) for write in self.writes if isinstance(write, Put))

    @property
    def cost(self) -> int:
        return max(len(self.compares), len(self.writes))


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """A transaction of its own, and what it was made from."""

    source: T
    txn: Txn


def joined(txns: Iterable[Txn], fences: Sequence[Compare]) -> Txn:
    """All of them in one, which happens only while the fences hold."""
    found = tuple(txns)
    return Txn(
        (*fences, *(c for txn in found for c in txn.compares)), tuple(w for t in found for w in t.writes)
    )


def chunks(parts: Iterable[Part[T]], limit: int) -> Iterator[list[Part[T]]]:
    """In order, as many together as one transaction takes."""
    chunk: list[Part[T]] = []
    ops = size = 0
    for part in parts:
        cost, weight = part.txn.cost, part.txn.weight
        if chunk and (ops + cost > limit or size + weight > TXN_BYTES):
            yield chunk
            chunk, ops, size = [], 0, 0
        chunk.append(part)
        ops += cost
        size += weight
    if chunk:
        yield chunk
