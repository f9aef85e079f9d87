"""How far a job is, and whether it has ended. Observations in, a view out; no clock, no IO.

A job has ended when all its completions are there, or when no task is at work and a slot is given up.
Only the current iteration counts. Source: docker/cli's behaviour on jobs, whose words these are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.cli.converge_lines import (
    ACTIVE,
    JOB,
    LONGEST,
    MAX_BARS,
    RANK,
    Converging,
    Line,
    error_line,
    state_of,
)

Json = Mapping[str, Any]

_STEPS = 10
_COMPLETE = RANK["complete"]


def observe_job(service: Json, tasks: Sequence[Json]) -> Converging:
    status = service.get("JobStatus") or {}
    if not status.get("LastExecution") and "swarm.schedule" in (service["Spec"].get("Labels") or {}):
        return Converging(lines=(Line(id=JOB, text="the job waits for its time"),), done=True)
    numbers = service["Spec"]["Mode"].get("ReplicatedJob")
    iteration = (status.get("JobIteration") or {}).get("Index", 0)
    current = [task for task in tasks if (task.get("JobIteration") or {}).get("Index") == iteration]
    slots = _by_slot(current, is_global=numbers is None)
    if numbers is None and not slots:
        return Converging(lines=(Line(id=JOB, text="waiting for tasks"),))
    newest = {slot: min(of_slot, key=_rank) for slot, of_slot in slots.items()}
    total = len(slots) if numbers is None else int(numbers["TotalCompletions"])
    completed = sum(state_of(task) == "complete" for task in newest.values())
    active = sum(_rank(task) < _COMPLETE for task in newest.values())
    lines = [_overall(completed, total)]
    if numbers is not None:
        at_once = min(total - completed, int(numbers["MaxConcurrent"]))
        lines.append(Line(id=ACTIVE, text=f"{active} out of {at_once} tasks"))
    if total <= MAX_BARS:
        lines.extend(_bar(slot, newest[slot], numbers, total) for slot in sorted(newest))
    if completed >= total:
        return Converging(lines=(*lines, Line(id=JOB, text="job complete")), done=True)
    failure = "" if active else _given_up(service, slots)
    return Converging(lines=tuple(lines), failure=failure)


def _by_slot(tasks: Sequence[Json], *, is_global: bool) -> dict[Any, list[Json]]:
    """The slots of a job are counted from 0 in the API; a global job's are its nodes."""
    found: dict[Any, list[Json]] = {}
    for task in tasks:
        found.setdefault(task.get("NodeID", "") if is_global else task.get("Slot", 0), []).append(task)
    return found


def _rank(task: Json) -> int:
    return RANK.get(state_of(task), 0)


def _overall(completed: int, total: int) -> Line:
    text = f"{completed:{len(str(total))}d} out of {total} complete"
    return Line(id=JOB, text=text, current=completed, steps=max(total, 1))


def _bar(slot: int | str, task: Json, numbers: Json | None, total: int) -> Line:
    id = str(slot) if numbers is None else f"{int(slot) + 1}/{total}"
    text = state_of(task).ljust(LONGEST)
    return error_line(id, task) or Line(id=id, text=text, current=_rank(task), steps=_STEPS)


def _given_up(service: Json, slots: Mapping[Any, Sequence[Json]]) -> str:
    """Why the job cannot end: a slot has failed more often than its policy starts it again."""
    policy = service["Spec"]["TaskTemplate"].get("RestartPolicy") or {}
    attempts = 0 if policy.get("Condition") == "none" else policy.get("MaxAttempts") or None
    if attempts is None:
        return ""
    for tasks in slots.values():
        failed = [task for task in tasks if state_of(task) in ("failed", "rejected")]
        if len(failed) > attempts:
            last = max(failed, key=lambda task: str(task["CreatedAt"]))
            return f"job failed: task {last['ID']}: {last['Status'].get('Err') or 'it failed'}"
    return ""
