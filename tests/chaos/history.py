"""What clients asked for and what they were told: recorded as it happens, one JSON object a line.

In: invocations and their ends, from any thread. Out: a file, and operations for the checkers.
Invariant: the line of an invocation is on its way to the disk before the request leaves, so that a run that
is cut short still holds everything that may have happened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from swarm.base.clock import SystemClock

CLOCK = SystemClock()
FOREVER = 1 << 63


class Outcome(StrEnum):
    OK = "ok"
    FAIL = "fail"
    """It was refused: it has not happened and never will."""
    INFO = "info"
    """Nobody knows: it may have happened, may still happen, or never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    action: str
    """create, write, remove or read."""
    key: str
    began: int
    ended: int = FOREVER
    outcome: Outcome = Outcome.INFO
    value: str | None = None
    """What was to be written; for a read what was found, None for nothing."""
    version: int = 0
    """What a write was decided on; for a read the version found."""
    reason: str = ""
    """Why it was refused."""


class Recorder:
    """Writes a history. Used by many threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._lock = threading.Lock()
        self._count = 0

    def close(self) -> None:
        self._file.close()

    def invoke(self, action: str, key: str, **fields: object) -> int:
        """The number under which the end is to be recorded."""
        with self._lock:
            self._count += 1
            number = self._count
            self._write({"n": number, "type": "invoke", "action": action, "key": key, **fields})
        return number

    def end(self, number: int, outcome: Outcome, **fields: object) -> None:
        with self._lock:
            self._write({"n": number, "type": outcome, **fields})

    def note(self, text: str) -> None:
        """Something that is no operation: what a nemesis did."""
        with self._lock:
            self._write({"type": "note", "text": text})

    @contextmanager
    def fault(self, text: str) -> Iterator[None]:
        self.note(f"begin {text}")
        try:
            yield
        finally:
            self.note(f"end {text}")

    def _write(self, event: Mapping[str, object]) -> None:
        self._file.write(json.dumps({"at": int(CLOCK.monotonic() * 1e9), **event}) + "\n")


def load(path: Path) -> list[Operation]:
    with path.open() as lines:
        return operations(json.loads(line) for line in lines)


def operations(events: Iterable[Mapping[str, Any]]) -> list[Operation]:
    """Invocations joined with their ends; one without an end may have happened at any time since."""
    begun: dict[int, Mapping[str, Any]] = {}
    ended: dict[int, Mapping[str, Any]] = {}
    for event in events:
        if event["type"] == "note":
            continue
        (begun if event["type"] == "invoke" else ended)[event["n"]] = event
    found = []
    for number, begin in begun.items():
        end = ended.get(number, {"type": Outcome.INFO})
        outcome = Outcome(end["type"])
        found.append(
            Operation(
                action=begin["action"],
                key=begin["key"],
                began=begin["at"],
                ended=FOREVER if outcome is Outcome.INFO else end["at"],
                outcome=outcome,
                value=end.get("value", begin.get("value")),
                version=end.get("version", begin.get("version", 0)),
                reason=end.get("reason", ""),
            )
        )
    return found
