"""How far a reader has come in the logs of tasks, so that reading may go on where a stream broke. Pure.

In: the lines as they come. Out: where to ask from, and which of the lines that come then are known already.
Several lines may carry one timestamp (conmon stamps what it reads at once), so those are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from swarm.proto.gen import dispatcher_pb2 as pb


@dataclass(slots=True)
class _Mark:
    """The last line's time in nanoseconds, and how many lines had it."""

    time: int
    count: int


class LogPosition:
    def __init__(self) -> None:
        self._marks: dict[tuple[str, str], _Mark] = {}
        self._skipping: dict[tuple[str, str], _Mark] = {}

    def since(self, task_ids: Iterable[str]) -> datetime | None:
        """From when on the tasks' lines may be new, and asked for again; None when there were none."""
        wanted = set(task_ids)
        times = [mark.time for (task_id, _), mark in self._marks.items() if task_id in wanted]
        return datetime.fromtimestamp(min(times) // 1000 / 1e6, UTC) if times else None

    def resume(self, task_ids: Iterable[str]) -> None:
        """The next lines of these tasks start with some that are known."""
        wanted = set(task_ids)
        for key, mark in self._marks.items():
            if key[0] in wanted:
                self._skipping[key] = _Mark(mark.time, mark.count)

    def is_new(self, line: pb.LogMessage) -> bool:
        key, time = (line.task_id, line.stream), line.timestamp.ToNanoseconds()
        skip = self._skipping.get(key)
        if skip is not None:
            if time < skip.time:
                return False
            if time == skip.time and skip.count > 0:
                skip.count -= 1
                return False
            del self._skipping[key]
        mark = self._marks.get(key)
        if mark is not None and mark.time == time:
            mark.count += 1
        else:
            self._marks[key] = _Mark(time, 1)
        return True
