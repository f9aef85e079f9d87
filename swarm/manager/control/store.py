"""The store as control needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from swarm.model.plan import Crossing, Op
from swarm.model.view import ClusterView


class Store(Protocol):
    @property
    def view(self) -> ClusterView:
        """What this manager knows; a commit of its own is in it when `commit` returns."""
        ...

    async def sync(self) -> None:
        """Bring `view` up to what a quorum has acknowledged by now. Raises: Unavailable."""
        ...

    async def apply(self, ops: Iterable[Op]) -> int:
        """Write what has not lost a race, in bounded transactions; returns how many ops were written."""
        ...

    async def commit(self, ops: Sequence[Op], *, crossing: Crossing | None = None) -> int:
        """Write all of `ops` in one transaction, or nothing; returns the revision.

        With `crossing`, `ops` must have been decided on the view of now: without an await in between.

        Raises:
            OutOfSequence: an object has another version than the op was decided on, or a commit crossed it.
            AlreadyExists: a name or an ingress port was taken meanwhile.
            Unavailable: no quorum.
        """
        ...
