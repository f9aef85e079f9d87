"""The fence's watchdog: kills what is armed when the deadline is over, whatever has become of swarmd.

A program of its own, run by `swarm.worker.fence` with Python's standard library alone: it must work while
swarmd is stopped, starved or dead. It ends by itself when nothing is armed.

In: `DIRECTORY/deadline` (seconds of CLOCK_BOOTTIME) and one file per armed task in `DIRECTORY/tasks`, named
by its id. Out: the processes in those tasks' cgroups killed, and then their files gone.
Invariant: no file goes before its cgroups are empty; an unreadable deadline is one that is over.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOOK_EVERY_S = 1.0
"""Also when the deadline is farther off: a machine that was suspended wakes up with time gone by."""
_AGAIN_S = 0.01
_ROUNDS = 200


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def armed(directory: Path) -> list[str]:
    """The ids of the tasks that are to be killed when the deadline is over."""
    with suppress(FileNotFoundError):
        return [entry for entry in os.listdir(directory / "tasks") if not entry.startswith(".")]
    return []


def read_deadline(directory: Path) -> float:
    with suppress(OSError, ValueError):
        return float((directory / "deadline").read_text())
    return 0.0


def strike(directory: Path, cgroups: Path, parent: str) -> None:
    """Kill everything that is armed. What does not die now keeps its file, and is tried again."""
    ids = armed(directory)
    for _ in range(_ROUNDS):
        alive = [task_id for task_id in ids if _kill(cgroups, parent, task_id)]
        for task_id in set(ids) - set(alive):
            (directory / "tasks" / task_id).unlink(missing_ok=True)
        if not alive:
            return
        ids = alive
        time.sleep(_AGAIN_S)


def _kill(cgroups: Path, parent: str, task_id: str) -> bool:
    """Whether there was anything to kill."""
    found = False
    for group in (cgroups / parent / task_id, *cgroups.glob(f"*/{parent}/{task_id}")):
        with suppress(OSError):
            (group / "cgroup.kill").write_text("1")
        for pid in _processes(group):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                found = True
    return found


def _processes(group: Path) -> Iterator[int]:
    for procs in group.glob("**/cgroup.procs"):
        with suppress(OSError):
            yield from (int(pid) for pid in procs.read_text().split() if pid != "0")


def take_watch(directory: Path) -> int | None:
    """The lock that whoever watches holds, as a descriptor; None if somebody else does."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def watch(directory: Path, cgroups: Path, parent: str, lock: int | None) -> None:
    """Until nothing is armed. The lock is let go before the last look, so that whoever arms a task and finds
    the lock taken can rely on being seen."""
    while lock is not None:
        while armed(directory):
            left_s = read_deadline(directory) - now_s()
            if left_s <= 0:
                strike(directory, cgroups, parent)
            time.sleep(min(max(left_s, _AGAIN_S), LOOK_EVERY_S))
        os.close(lock)
        if not armed(directory):
            return
        lock = take_watch(directory)


def main(directory: Path, cgroups: Path, parent: str) -> int:
    """Watch in a process of its own that nobody waits for; returns when it watches, or another one does."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.read(reader, 1)
        return 0
    os.close(reader)
    os.setsid()
    lock = take_watch(directory)
    os.close(writer)
    watch(directory, cgroups, parent, lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
