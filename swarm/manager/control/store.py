"""The store as control needs it, and changes that go with no version of the user's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol, TypeVar

from swarm.base.errors import OutOfSequence
from swarm.model.objects import StoredObject
from swarm.model.plan import Crossing, Op
from swarm.model.view import ClusterView
from swarm.store.changes import Changes

ATTEMPTS = 10

T = TypeVar("T")


class Store(Protocol):
    @property
    def view(self) -> ClusterView:
        """What this manager knows; a commit of its own is in it when `commit` returns."""
        ...

    def changes(self, *kinds: type[StoredObject]) -> AbstractContextManager[Changes]:
        """A feed of what changes in `view` from now on."""
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


async def insist(store: Store, attempt: Callable[[], Awaitable[T]]) -> T:
    """Decide and write anew when something, often the leader, has changed what the attempt was decided on.

    Raises: OutOfSequence after the last attempt, and whatever an attempt raises.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(OutOfSequence):
            return await attempt()
        await store.sync()
    return await attempt()
