"""The edge of every deciding component: watch, mark keys dirty, plan, apply fenced, sleep.

Level-triggered: a change only marks keys. A key is planned as a whole from what is stored, so a lost event,
a lost race or a change of leader costs a second look and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from swarm.base.clock import Clock
from swarm.base.errors import Unavailable
from swarm.base.log import get_logger
from swarm.model.objects import StoredObject
from swarm.model.plan import Op, Plan
from swarm.model.view import ClusterView
from swarm.store.changes import Change, ObjectKey
from swarm.store.store import Store

QUIET_S = 0.02
LIMIT_S = 0.5
RETRY_S = 0.5
BROKEN_RETRY = timedelta(seconds=5)
LEAST_SLEEP_S = 0.02
"""An alarm that a planner sets for now, again and again, must not spin."""

log = get_logger("planner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """One deciding component: what concerns it, and its pure function."""

    name: str
    kinds: tuple[type[StoredObject], ...]
    all_keys: Callable[[ClusterView], Iterable[str]]
    """Everything it may have to plan, looked at once when it starts to lead."""
    keys_of: Callable[[ObjectKey, Change], Iterable[str]]
    """Which keys a change makes dirty."""
    plan: Callable[[ClusterView, str, datetime], Plan]


Concerns = Callable[[StoredObject | None, StoredObject | None], bool]
"""Whether a change, from the first to the second, can make a difference to a plan."""


def whole(
    name: str,
    kinds: tuple[type[StoredObject], ...],
    plan: Callable[[ClusterView, datetime], Plan],
    concerns: Concerns = lambda _old, _new: True,
) -> Planner:
    """A planner that looks at everything, whenever something has changed that `concerns` it."""
    return Planner(
        name=name,
        kinds=kinds,
        all_keys=lambda _: ("all",),
        keys_of=lambda _, change: ("all",) if concerns(change.old, change.new) else (),
        plan=lambda view, _, now: plan(view, now),
    )


class PlanLoop:
    def __init__(self, planner: Planner, store: Store, clock: Clock, epoch: int) -> None:
        self._planner = planner
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._alarms: dict[str, float] = {}
        """Key -> when it is due by the monotonic clock: a step of the wall clock delays nothing."""
        self._is_unsure = False
        """A write was not answered: until it is known whether it happened, a plan might repeat it."""

    async def run(self) -> None:
        """Until cancelled. Raises: LeadershipLost."""
        with self._store.changes(*self._planner.kinds) as changes:
            dirty = set(self._planner.all_keys(self._store.view))
            while True:
                again = await self._settle(dirty)
                if again:
                    await asyncio.sleep(RETRY_S)
                    dirty = again | self._marked(changes.take()) | self._due()
                    continue
                try:
                    async with asyncio.timeout(self._sleep_s()):
                        changed = await changes.settle(QUIET_S, LIMIT_S)
                except TimeoutError:
                    changed = changes.take()
                dirty = self._marked(changed) | self._due()

    async def _settle(self, dirty: set[str]) -> set[str]:
        """Plan and apply; returns the keys to plan again soon."""
        if not await self._is_caught_up():
            return dirty
        ops: list[Op] = []
        now = self._clock.now()
        for key in sorted(dirty):
            plan = self._plan(key, now)
            ops.extend(plan.ops)
            self._alarms.pop(key, None)
            if plan.wake_at is not None:
                self._alarms[key] = self._clock.monotonic() + (plan.wake_at - now).total_seconds()
            await asyncio.sleep(0)
        if not ops:
            return set()
        try:
            written = await self._store.apply(ops, epoch=self._epoch)
        except Unavailable as error:
            log.warning("plan.unapplied", planner=self._planner.name, reason=str(error))
            self._is_unsure = True
            return dirty
        log.debug("plan.applied", planner=self._planner.name, ops=len(ops), written=written)
        return set() if written == len(ops) else dirty

    async def _is_caught_up(self) -> bool:
        if self._is_unsure:
            try:
                await self._store.catch_up(self._epoch)
            except Unavailable as error:
                log.warning("plan.waits", planner=self._planner.name, reason=str(error))
                return False
            self._is_unsure = False
        return True

    def _plan(self, key: str, now: datetime) -> Plan:
        """One key that cannot be planned must not keep the others from it."""
        try:
            return self._planner.plan(self._store.view, key, now)
        except Exception:
            log.exception("plan.broken", planner=self._planner.name, key=key)
            return Plan(wake_at=now + BROKEN_RETRY)

    def _marked(self, changed: Mapping[ObjectKey, Change]) -> set[str]:
        return {dirty for key, change in changed.items() for dirty in self._planner.keys_of(key, change)}

    def _due(self) -> set[str]:
        now = self._clock.monotonic()
        return {key for key, at in self._alarms.items() if at <= now}

    def _sleep_s(self) -> float | None:
        if not self._alarms:
            return None
        return max(LEAST_SLEEP_S, min(self._alarms.values()) - self._clock.monotonic())
