"""Versions of secrets and configs: new ones, back to older ones, and those that nobody needs any more.

In: a secret or config by reference, and data. Out: the version that is current now. Services that follow
it are rolled by their own update policy, in the transaction that makes the version current: their previous
spec is the present one, held at the version before, so that an update that fails is rolled back to what
worked.
Invariant: a version's number is used once, and its data never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from swarm.base.errors import FailedPrecondition, NotFound
from swarm.manager.control.payloads import DELETED_AT_ONCE, find_payload, users_of
from swarm.manager.control.store import Store, insist
from swarm.model.objects import Config, Payload, Secret, Service, Task, payload_id
from swarm.model.payload_rules import check_size, kind_of
from swarm.model.payload_versions import VersionFacts, held_at, is_following, versions_of
from swarm.model.plan import Create, Crossing, Delete, Op, Update
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView

ROLLED_AT_ONCE = 90
"""Services in the transaction of the new version; the orchestrator finds the others by itself."""


class PayloadVersions:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, kind: type[Secret | Config], reference: str, data: bytes) -> int:
        """The number of the new version; of the current one when that has the same data.

        Raises: InvalidArgument, NotFound, FailedPrecondition.
        """
        return await insist(self._store, lambda: self._add(kind, reference, data))

    async def _add(self, kind: type[Secret | Config], reference: str, data: bytes) -> int:
        item = find_payload(self._store.view, kind, reference)
        if isinstance(item, Secret) and item.spec.driver is not None:
            raise FailedPrecondition(
                f"secret {item.spec.name} comes from its driver: it has no versions of its own"
            )
        check_size(kind_of(item.spec), data)
        present = self._payload(item, item.current)
        if present is not None and present.data == data:
            return item.current
        number = item.last + 1
        fresh = Create(object=Payload(id=payload_id(item.id, number), data=data))
        await self._make_current(item, replace(item, current=number, last=number), fresh)
        return number

    async def roll_back(self, kind: type[Secret | Config], reference: str, number: int = 0) -> int:
        """Make another version current, by default the one before; its number.

        Raises: NotFound, FailedPrecondition.
        """
        return await insist(self._store, lambda: self._roll_back(kind, reference, number))

    async def _roll_back(self, kind: type[Secret | Config], reference: str, number: int) -> int:
        item = find_payload(self._store.view, kind, reference)
        noun, name = kind_of(item.spec), item.spec.name
        stored = [n for n in range(1, item.last + 1) if self._payload(item, n) is not None]
        if number and number not in stored:
            raise NotFound("version", f"{number} of {noun} {name}")
        older = [n for n in stored if n < item.current]
        if not number and not older:
            raise FailedPrecondition(f"{noun} {name} has no version before {item.current}")
        chosen = number or older[-1]
        if chosen != item.current:
            # Somebody may prune just now, to whom that version is of no use.
            await self._make_current(item, replace(item, current=chosen), crossing=Crossing.NAMES)
        return chosen

    def history(self, kind: type[Secret | Config], reference: str) -> tuple[VersionFacts, ...]:
        """Newest first."""
        item = find_payload(self._store.view, kind, reference)
        holders = _holders(self._store.view, item)
        return tuple(
            VersionFacts(
                number=number,
                created_at=found.meta.created_at,
                is_current=number == item.current,
                size_bytes=len(found.data),
                tasks=tuple(sorted(holders.get(number, ()))),
            )
            for number in range(item.last, 0, -1)
            if (found := self._payload(item, number)) is not None
        )

    async def prune(self, kind: type[Secret | Config], reference: str) -> tuple[int, ...]:
        """Remove the versions that neither are current nor used by a task or a service's spec."""
        removed: list[int] = []
        while some := await insist(self._store, lambda: self._prune(kind, reference)):
            removed.extend(some)
        return tuple(removed)

    async def _prune(self, kind: type[Secret | Config], reference: str) -> Sequence[int]:
        """As many as one transaction holds."""
        unused = self._unused(find_payload(self._store.view, kind, reference))[:DELETED_AT_ONCE]
        if unused:
            ops = [Delete(object=payload) for _, payload in unused]
            await self._store.commit(ops, crossing=Crossing.REMOVES)
        return [number for number, _ in unused]

    def _unused(self, item: Secret | Config) -> list[tuple[int, Payload]]:
        used = {item.current, *_holders(self._store.view, item), *_held(self._store.view, item)}
        stored = ((n, self._payload(item, n)) for n in range(1, item.last + 1) if n not in used)
        return [(number, payload) for number, payload in stored if payload is not None]

    async def _make_current(
        self, item: Secret | Config, changed: Secret | Config, *more: Op, crossing: Crossing | None = None
    ) -> None:
        rolled = roll_followers(self._store.view, item)
        ops = [Update(object=changed), *more, *rolled[:ROLLED_AT_ONCE]]
        await self._store.commit(ops, crossing=crossing)
        await self._store.apply(rolled[ROLLED_AT_ONCE:])

    def _payload(self, item: Secret | Config, number: int) -> Payload | None:
        return self._store.view.get(Payload, payload_id(item.id, number))


def roll_followers(view: ClusterView, item: Secret | Config) -> list[Update]:
    """What starts an update of each service that follows it; jobs take it up with their next run."""
    return [
        Update(object=_rolled(service, item.id, item.current))
        for service in users_of(view, item.id)
        if is_following(service, item.id) and not service.spec.mode.is_job
    ]


def _rolled(service: Service, object_id: str, former: int) -> Service:
    """The service at the start of an update whose only change is the version."""
    return replace(
        service,
        spec_version=service.meta.version,
        previous_spec=held_at(service.spec, object_id, former),
        previous_spec_version=service.spec_version,
        update_status=None,
    )


def _holders(view: ClusterView, item: Secret | Config) -> dict[int, list[str]]:
    """Names of live tasks by the version that they have."""
    found: dict[int, list[str]] = {}
    for service in users_of(view, item.id):
        for task in view.tasks_of_service(service.id):
            for object_id, number in set(versions_of(task.spec)) if _is_live(task) else ():
                if object_id == item.id:
                    found.setdefault(number, []).append(task.name)
    return found


def _is_live(task: Task) -> bool:
    return task.status.state <= TaskState.RUNNING


def _held(view: ClusterView, item: Secret | Config) -> Iterable[int]:
    """Versions that specs hold: the present one, or the one that a rollback goes to."""
    for service in users_of(view, item.id):
        for spec in (service.spec, service.previous_spec):
            found = versions_of(spec.task_template) if spec is not None else ()
            yield from (number for object_id, number in found if object_id == item.id)
