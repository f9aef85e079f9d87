"""What is wrong with a manager's store, in one word and one sentence with the way out.

In: what etcd wrote before it ended, the space left on its disk, what a running member says of itself, and how
long this manager's own writes take. Out: a `Health`. Pure: the edges look, this decides.
Source: messages of etcd 3.4 to 3.6 (wal, snap, etcdmain, mvcc).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MIB = 1024 * 1024
DISK_ROOM_BYTES = 16 * MIB
"""Free again after a full disk: from here on a start is worth trying."""
DISK_LOW_BYTES = 4 * MIB
SLOW_S = 0.25
"""Median of this manager's own commits; a sound disk needs a few milliseconds."""
SILENT_S = 4.0
"""Managers write several times a second: a store that shows nothing for so long has no quorum here."""


class StoreState(StrEnum):
    OK = "OK"
    STARTING = "STARTING"
    SLOW = "SLOW"
    NO_QUORUM = "NO_QUORUM"
    ALARM = "ALARM"
    DISK_FULL = "DISK_FULL"
    CORRUPT = "CORRUPT"
    REMOVED = "REMOVED"
    PORT_IN_USE = "PORT_IN_USE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    state: StoreState
    message: str = ""
    """What it means here and what to do; empty when nothing is wrong."""

    @property
    def serves(self) -> bool:
        return self.state in (StoreState.OK, StoreState.SLOW)


OK = Health(state=StoreState.OK)
STARTING = Health(state=StoreState.STARTING, message="the store is starting")

_REPAIR = "if other managers are up, `swarm system repair` on this node replaces it from them"


def missing(directory: str) -> Health:
    """A member that had data and has none would vote as if it had never voted: it must not start."""
    text = f"the store's files in {directory} are missing: {_REPAIR}"
    return Health(state=StoreState.CORRUPT, message=text)


_EXITS: tuple[tuple[tuple[str, ...], StoreState, str], ...] = (
    (
        ("no space left on device", "disk quota exceeded"),
        StoreState.DISK_FULL,
        "the disk under {directory} is full: free space there, the store then starts again by itself",
    ),
    (
        ("has been permanently removed", "removed member", "the member has been removed"),
        StoreState.REMOVED,
        f"this member has been taken out of the store: {_REPAIR}",
    ),
    (
        (
            "crc mismatch", "walpb:", "wal: slice bounds", "file not found in wal", "invalid database",
            "failed to read wal", "failed to find database snapshot", "snap: ", "data corruption",
            "checksum mismatch", "unexpected eof", "found data inconsistency", "tocommit", "corrupt",
            "slice bounds out of range", "index out of range", "bbolt.", "failed to unmarshal",
        ),
        StoreState.CORRUPT,
        f"the store's files in {{directory}} are damaged; they are not touched: {_REPAIR}",
    ),
    (
        ("address already in use", "cannot assign requested address"),
        StoreState.PORT_IN_USE,
        "etcd cannot listen ({detail}): free the port, or give this host its address back",
    ),
)  # fmt: skip


def classify_exit(output: str, directory: str, free_bytes: int) -> Health:
    """Why etcd ended, by what it wrote since its start and the space its disk has now."""
    if free_bytes < DISK_LOW_BYTES:  # it may not even have been able to write why, or wrote half a record
        return Health(state=StoreState.DISK_FULL, message=_EXITS[0][2].format(directory=directory))
    lines = output.strip().splitlines()
    for words, state, sentence in _EXITS:
        # A peer that goes leaves warnings of broken streams, which read like broken files.
        telling = [line for line in lines if state is not StoreState.CORRUPT or not _is_mild(line)]
        detail = next((line for line in telling if any(word in line.lower() for word in words)), None)
        if detail is not None:
            return Health(state=state, message=sentence.format(directory=directory, detail=_short(detail)))
    last = _short(lines[-1]) if lines else "it said nothing"
    return Health(
        state=StoreState.FAILED,
        message=f"etcd ended and is started again ({last}); its log is {directory}/log",
    )


def _is_mild(line: str) -> bool:
    """Whether etcd went on after it had written this."""
    return any(f'"level":"{level}"' in line for level in ("debug", "info", "warn"))


def _short(line: str) -> str:
    """The end of a log line, where etcd puts the error."""
    return line.strip()[-160:]


def may_start(health: Health | None, free_bytes: int) -> bool:
    """Whether a start can help: not on a disk that is still full."""
    return health is None or health.state is not StoreState.DISK_FULL or free_bytes >= DISK_ROOM_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    """What is known of a member that runs."""

    has_leader: bool
    is_learner: bool
    alarms: tuple[str, ...]
    """`NOSPACE` or `CORRUPT`, of any member of the store: while one stands, all refuse writes."""
    own_alarms: tuple[str, ...]
    free_bytes: int
    """Left on the disk under the store."""
    silent_s: float
    """Since the mirror moved last."""
    finding: str
    """What speaks against this member's data, though etcd is content; empty for nothing."""
    commits_s: tuple[float, ...]
    """How long this manager's last writes took."""


def judge_damage(finding: str) -> Health | None:
    """What etcd itself has not found; None for an empty finding."""
    return Health(state=StoreState.CORRUPT, message=f"{finding}: {_REPAIR}") if finding else None


def judge(facts: MemberFacts) -> Health:
    """The state of a member that runs; the worst is told."""
    if "CORRUPT" in facts.own_alarms:
        text = f"etcd found this member's data to differ from the others': {_REPAIR}"
        return Health(state=StoreState.CORRUPT, message=text)
    if (damaged := judge_damage(facts.finding)) is not None:
        return damaged
    if facts.free_bytes < DISK_LOW_BYTES:
        text = "the disk under the store is full, it will stop at its next larger write: free space there"
        return Health(state=StoreState.DISK_FULL, message=text)
    no_quorum = Health(
        state=StoreState.NO_QUORUM,
        message="too few managers are online: start them, or go on with one: "
        "`swarm init --force-new-cluster`",
    )
    if not facts.has_leader:
        return no_quorum
    # Before silence is: a store that is full takes no beats.
    if "NOSPACE" in facts.alarms:
        return Health(
            state=StoreState.ALARM,
            message="the store has used its quota up: it is being compacted; if this stays, remove what is "
            "not needed or start swarmd with a larger --etcd-quota",
        )
    if facts.silent_s > SILENT_S:
        return no_quorum
    if facts.alarms:
        return Health(state=StoreState.ALARM, message="another member's data is damaged: see the table")
    if (median := _median(facts.commits_s)) > SLOW_S:
        text = (
            f"writes take {median * 1000:.0f} ms: the disk under the store, or the network to the managers, "
            "is too slow"
        )
        return Health(state=StoreState.SLOW, message=text)
    return OK


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0
