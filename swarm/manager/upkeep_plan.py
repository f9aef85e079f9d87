"""What the store's members need: when to compact, whose database to defragment, which alarms to clear. Pure.

Defragmenting stops a member for a moment, so it is done one member at a time, raft's leader last, and not at
all while a learner is catching up: etcd 3.4 may corrupt a member that defragments while it takes a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarm.store.members import Alarm

PRESSED = 0.8
"""Share of the quota from which on history is given up early."""
ROOMY = 0.5
"""Share of the quota from which on a database with holes is worth defragmenting."""
HOLES = 0.5
"""Such a share of a database must be unused for it to be defragmented without need."""
ROOM_NEEDED = 0.9
"""An alarm is cleared when what is used is below this share of the quota; else it would be back at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberUse:
    """A member as its manager told of it."""

    member_id: int
    node_id: str
    leads: bool
    size_bytes: int
    used_bytes: int
    quota_bytes: int

    @property
    def fullness(self) -> float:
        return self.size_bytes / self.quota_bytes

    @property
    def holes(self) -> float:
        return 1 - self.used_bytes / self.size_bytes if self.size_bytes else 0.0


def is_pressed(uses: Iterable[MemberUse], alarms: Iterable[Alarm]) -> bool:
    """Whether history must go now: the quota is used up, or nearly."""
    return any(a.kind == "NOSPACE" for a in alarms) or any(use.fullness > PRESSED for use in uses)


def plan_turns(
    uses: Iterable[MemberUse], *, has_learner: bool, pressed: bool = False, distrust: bool = False
) -> tuple[MemberUse, ...]:
    """The members to defragment, in turn; `pressed` after a compaction that was needed.

    A member may say that it is full when it is not: etcd counts what a compaction has freed with the next
    write only, and under an alarm there is none. With `distrust` such members have their turn, too.
    """
    if has_learner:
        return ()
    least = 0.1 if pressed else HOLES
    chosen = (
        use
        for use in uses
        if (use.fullness > ROOMY and use.holes > least) or (distrust and not _has_room(use))
    )
    return tuple(sorted(chosen, key=lambda use: (use.leads, use.member_id)))


def plan_disarm(
    alarms: Sequence[Alarm], uses: Iterable[MemberUse], member_ids: Iterable[int]
) -> tuple[Alarm, ...]:
    """Alarms to clear: of space once there is some, and all of members that are gone."""
    present = set(member_ids)
    has_room = all(map(_has_room, uses))
    return tuple(a for a in alarms if a.member_id not in present or (a.kind == "NOSPACE" and has_room))


def _has_room(use: MemberUse) -> bool:
    return use.used_bytes < ROOM_NEEDED * use.quota_bytes
