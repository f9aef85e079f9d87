"""What the display of a converging service is made of: its lines, and the order of tasks' states. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

MAX_BARS = 20
OVERALL = "overall progress"
VERIFY = "verify"
ROLLBACK = "rollback"
JOB = "job progress"
ACTIVE = "active tasks"

ORDER = (
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
    "remove",
    "orphaned",
)
RANK = {state: rank for rank, state in enumerate(ORDER, 1)}
RUNNING = RANK["running"]
LONGEST = max(len(state) for state in ORDER[:RUNNING])
_ERROR_LENGTH = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the display: `id: text`, and a bar of `current` out of `steps` if that is set."""

    id: str
    text: str
    current: int | None = None
    steps: int = RUNNING
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Converging:
    """`lines` replace those of the same id; `failure` and `done` end the wait."""

    lines: tuple[Line, ...]
    done: bool = False
    failure: str = ""


def state_of(task: Json) -> str:
    return str(task["Status"]["State"])


def error_line(id: str, task: Json) -> Line | None:
    """The task's error, cut to one line that fits; None if it has none."""
    error = task["Status"].get("Err", "")
    if not error:
        return None
    text = error.replace("\n", " ")
    text = text if len(text) <= _ERROR_LENGTH else text[: _ERROR_LENGTH - 1] + "…"
    return Line(id=id, text=text, is_error=True)
