"""The store as control needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from swarm.model.plan import Op
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

    async def commit(self, ops: Sequence[Op]) -> int:
        """Write all of `ops` in one transaction, or nothing; returns the revision.

        Raises:
            OutOfSequence: an object has another version than the op was decided on.
            AlreadyExists: a name or an ingress port was taken meanwhile.
            Unavailable: no quorum.
        """
        ...
