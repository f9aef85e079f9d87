"""What a planner decides: writes to objects, each with the version it was decided on, and when to look again.

A planner returns a `Plan`; the edge applies it. An op whose object has changed meanwhile is dropped and its
key is planned again, so no op is ever patched by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from swarm.model.objects import StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    object: StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Write `object` if the stored one still has the version that `object.meta` carries."""

    object: StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete `object` if the stored one still has the version that `object.meta` carries."""

    object: StoredObject


Op = Create | Update | Delete


class Crossing(StrEnum):
    """What a commit is compared with beside its own objects: one manager may name what another one removes.

    Of two such commits that cross, the later one fails and is decided anew.
    """

    NAMES = "names"
    """A service that names secrets, configs or networks; or a version that becomes the current one."""
    REMOVES = "removes"
    """One of those, which nothing names as far as this manager knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    ops: tuple[Op, ...] = ()
    wake_at: datetime | None = None
    """Plan again no later than this, although nothing will have changed."""

    @staticmethod
    def of(ops: Iterable[Op], wake_at: datetime | None = None) -> Plan:
        return Plan(ops=tuple(ops), wake_at=wake_at)

    def __add__(self, other: Plan) -> Plan:
        return Plan(ops=self.ops + other.ops, wake_at=earliest(self.wake_at, other.wake_at))


def join(plans: Iterable[Plan]) -> Plan:
    """All of `plans` as one, in time linear in their ops."""
    parts = tuple(plans)
    return Plan.of((op for plan in parts for op in plan.ops), earliest(*(plan.wake_at for plan in parts)))


def earliest(*times: datetime | None) -> datetime | None:
    """The earliest of the times given, None standing for never."""
    return min((t for t in times if t is not None), default=None)
