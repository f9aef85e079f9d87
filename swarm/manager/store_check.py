"""Whether a member of the store holds what the others do: hashes of everything in, a finding out. Pure.

etcd checks its log, and a reader of a sealed value would see it damaged; but a member that lost a write, or
whose database was changed on the disk, goes on as if nothing were wrong. So each manager compares its own
member's hash with the others' from time to time. etcd can do that itself, but its alarm stops all writes of
all members, and blames whoever differs from raft's leader.
Invariant: one difference is no finding (etcd 3.4 hashes differently while it compacts): it takes three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_S = 10.0
EVERY_S = 600.0
AGAIN_S = 5.0
"""After a difference, or when nobody could be compared with."""
DIFFERENCES = 3

MINORITY = "this member's data differ from those of the other managers"
UNDECIDED = "the managers' data differ, and no majority tells whose are right: repair the one you trust least"


@dataclass(frozen=True, slots=True)
class StoreHash:
    """Of all keys up to one revision."""

    value: int
    compact_revision: int
    """Up to where history is gone: only hashes with the same one can be compared."""


def compare(own: StoreHash, others: Sequence[StoreHash]) -> str | None:
    """What is wrong with this member; empty when nothing is, None when nobody can be compared with."""
    votes = Counter(h.value for h in (own, *others) if h.compact_revision == own.compact_revision)
    if votes.total() < 2:
        return None
    if votes[own.value] * 2 > votes.total():
        return ""
    return MINORITY if max(votes.values()) * 2 > votes.total() else UNDECIDED


class StoreCheck:
    """When to compare, and what has come of it."""

    def __init__(self, now: float) -> None:
        self._due = now + FIRST_S
        self._differences = 0
        self.finding = ""
        """What speaks against this member; empty for nothing."""

    def is_due(self, now: float) -> bool:
        return now >= self._due

    def take(self, compared: str | None, now: float) -> None:
        """The outcome of a comparison; None when there was none."""
        self._due = now + (EVERY_S if compared == "" else AGAIN_S)
        if compared is None:
            return
        self._differences = self._differences + 1 if compared else 0
        if not compared:
            self.finding = ""
        elif self._differences >= DIFFERENCES:
            self.finding = compared
