"""What happened in the cluster, as its users hear of it.

Every event has a position: the store's revision of the write that it tells of, then its type and object.
Positions are the same on every manager, so whoever has heard one can go on after it anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from swarm.base.errors import InvalidArgument

GAP = "gap"
"""The action of the event that says: what happened before it is not all known any more."""


class Position(NamedTuple):
    """Where an event stands; ordered."""

    revision: int
    type: str = ""
    id: str = ""

    def __str__(self) -> str:
        return f"{self.revision}/{self.type}/{self.id}"


def parse_position(text: str) -> Position:
    """`1234/task/<id>` as an event told it, or a bare revision for all of it. Raises: InvalidArgument."""
    revision, slash, rest = text.partition("/")
    kind, _, object_id = rest.partition("/")
    if not (revision.isascii() and revision.isdigit()):
        raise InvalidArgument(f"invalid position {text!r}: it is what an event's `revision` says")
    return Position(int(revision), kind, object_id) if slash else whole_revision(int(revision))


def whole_revision(revision: int) -> Position:
    """After all that this revision wrote."""
    return Position(revision, "~")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`type` and `action` are Docker's words where it has them: `service`, `update`."""

    position: Position
    time: datetime
    type: str
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
