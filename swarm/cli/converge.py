"""Whether a service has converged, and what to show meanwhile. Observations in, a view out; no clock, no IO.

A service has converged when as many tasks run as it wants (on a global service: a task on every node that got
one), and this has stayed so for the monitor period; an update under way is waited for. One that pauses,
or rolls back though nobody asked for it, is a failure.

Source: docker/cli's behaviour on `service create` and `scale`, seen in its traffic and output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

from swarm.cli.converge_jobs import observe_job
from swarm.cli.converge_lines import (
    LONGEST,
    MAX_BARS,
    OVERALL,
    RANK,
    ROLLBACK,
    RUNNING,
    VERIFY,
    Converging,
    Line,
    error_line,
    state_of,
)
from swarm.cli.resolve import slot_of
from swarm.cli.values import natural_key

Json = Mapping[str, Any]

HOPELESS_AFTER = 3
"""Tasks of one slot that could not be prepared (no such image or command), before the wait is given up."""
DEFAULT_MONITOR_S = 5.0


class Convergence:
    """A machine over observations of one service; `now_s` is any monotonic count of seconds.

    `is_rollback`: the user asked for the rollback, so that its end is no failure.
    """

    def __init__(self, *, is_rollback: bool = False) -> None:
        self._slots: dict[object, int] = {}
        self._reached = False
        self._since_s: float | None = None
        self._rolling_back = False
        self._asked_for = is_rollback
        self._why_back = ""

    def handle(self, service: Json, tasks: Sequence[Json], nodes: Sequence[Json], now_s: float) -> Converging:
        if service["Spec"]["Mode"].keys() & {"ReplicatedJob", "GlobalJob"}:
            return observe_job(service, tasks)
        lines: list[Line] = []
        status = service.get("UpdateStatus") or {}
        state, message = status.get("State", ""), status.get("Message", "")
        if state in ("paused", "rollback_paused"):
            what = "update" if state == "paused" else "rollback"
            advice = f"mend the cause, then: swarm service update --resume {service['Spec']['Name']}"
            return Converging(lines=(), failure=f"service {what} paused: {message} ({advice})")
        if state == "rollback_started" and not self._rolling_back:
            self._why_back = message
            lines.append(Line(id=ROLLBACK, text=message))
        self._rolling_back = state.startswith("rollback") if state else self._rolling_back
        monitor_s = _monitor_s(service)
        is_over = state not in ("updating", "rollback_started")
        if is_over and self._since_s is not None and now_s - self._since_s >= monitor_s:
            return self._end(service, [])
        hopeless = _hopeless(service, tasks)
        if hopeless and not self._reached and not state:
            return Converging(lines=(), failure=hopeless)
        active = {node["ID"] for node in nodes if node["Status"]["State"] != "down"}
        converged = self._observe(service, tasks, active, lines)
        if state == "completed" and converged:
            return self._end(service, lines)  # the update has watched each of its tasks already
        self._verify(converged, monitor_s, now_s, lines)
        return Converging(lines=tuple(lines))

    def _end(self, service: Json, lines: list[Line]) -> Converging:
        lines.append(Line(id=VERIFY, text=f"Service {service['ID']} converged"))
        status = service.get("UpdateStatus") or {}
        if status.get("State") != "rollback_completed":
            return Converging(lines=tuple(lines), done=True)
        lines.append(Line(id=ROLLBACK, text=status.get("Message", "")))
        why = self._why_back or status.get("Message", "")
        failure = "" if self._asked_for else f"service rolled back: {why}"
        return Converging(lines=tuple(lines), done=True, failure=failure)

    @property
    def has_converged(self) -> bool:
        return self._since_s is not None

    def _verify(self, converged: bool, monitor_s: float, now_s: float, lines: list[Line]) -> None:
        if converged:
            self._since_s = now_s if self._since_s is None else self._since_s
            left_s = max(ceil(monitor_s - (now_s - self._since_s)), 1)
            if monitor_s > 0:
                text = f"Waiting {left_s} seconds to verify that tasks are stable..."
                lines.append(Line(id=VERIFY, text=text))
        elif self._since_s is not None:
            lines.append(Line(id=VERIFY, text="Detected task failure"))
            self._since_s = None

    def _observe(self, service: Json, tasks: Sequence[Json], active: set[str], lines: list[Line]) -> bool:
        replicated = service["Spec"]["Mode"].get("Replicated")
        if replicated is None:
            chosen = _newest(tasks, lambda task: task.get("NodeID") or None, active)
            wanted = len(chosen)
            if not chosen:
                lines.append(Line(id=OVERALL, text="waiting for new tasks"))
                return False
        else:
            chosen = _newest(tasks, lambda task: task.get("Slot", 0), active)
            wanted = int(replicated.get("Replicas", 1))
        running = sum(map(_is_running, chosen.values()))
        self._reached = self._reached and all(state_of(task) == "running" for task in chosen.values())
        if not self._reached:
            lines.append(self._overall(running, wanted))
            if wanted <= MAX_BARS:
                lines.extend(self._bars(chosen, wanted, is_global=replicated is None))
            self._reached = running == wanted
        return running == wanted

    def _overall(self, running: int, wanted: int) -> Line:
        prefix = "rolling back update: " if self._rolling_back else ""
        return Line(id=OVERALL, text=f"{prefix}{running} out of {wanted} tasks")

    def _bars(self, chosen: Mapping[Any, Json], wanted: int, *, is_global: bool) -> list[Line]:
        """One line for each slot, in order; a slot without a task yet has an empty one."""
        shown: dict[str, Line] = {}
        if not is_global:
            shown = {id: Line(id=id, text="") for id in (f"{n}/{wanted}" for n in range(1, wanted + 1))}
        for slot in sorted(chosen, key=lambda key: natural_key(str(key))):
            number = self._slots.setdefault(slot, len(self._slots) + 1)
            id = slot[:12] if is_global else f"{number}/{wanted}"
            line = _bar(id, chosen[slot])
            if line is not None and (is_global or number <= wanted):
                shown[id] = line
        return list(shown.values())


def _hopeless(service: Json, tasks: Sequence[Json]) -> str:
    """Why there is no use in waiting: no task runs, and a slot's tasks could not be prepared thrice."""
    if any(_is_running(task) for task in tasks):
        return ""
    refused: dict[object, list[Json]] = {}
    for task in tasks:
        if state_of(task) == "rejected":
            refused.setdefault(slot_of(task) or task.get("NodeID"), []).append(task)
    slot = max(refused.values(), key=len, default=[])
    if len(slot) < HOPELESS_AFTER:
        return ""
    name = service["Spec"]["Name"]
    return (
        f"service {name} does not start: {slot[-1]['Status'].get('Err', '')} "
        f"(it is tried again; look with: swarm service ps {name}, remove with: swarm service rm {name})"
    )


def _bar(id: str, task: Json) -> Line | None:
    failed = error_line(id, task)
    if failed is not None:
        return failed
    rank = RANK.get(state_of(task), 0)
    if rank > RUNNING or RANK[task["DesiredState"]] > RUNNING:
        return None
    return Line(id=id, text=state_of(task).ljust(LONGEST), current=rank)


def _is_running(task: Json) -> bool:
    return state_of(task) == "running" and RANK.get(task["DesiredState"], 0) <= RUNNING


def _newest(tasks: Sequence[Json], key_of: Callable[[Json], object], active: set[str]) -> dict[Any, Json]:
    """For each slot the task with the lowest desired state, then the lowest state; not on a down node."""
    chosen: dict[Any, Json] = {}
    for task in tasks:
        key = key_of(task)
        desired, state = RANK.get(task["DesiredState"], 0), RANK.get(state_of(task), 0)
        if key is None or not desired or not state:
            continue
        if task.get("NodeID") and task["NodeID"] not in active:
            continue
        rival = chosen.get(key)
        if rival is not None:
            ranks = (RANK[rival["DesiredState"]], RANK[state_of(rival)])
            if ranks <= (desired, state):
                continue
        chosen[key] = task
    return chosen


def _monitor_s(service: Json) -> float:
    configured = (service["Spec"].get("UpdateConfig") or {}).get("Monitor", 0)
    return configured / 1e9 if configured else DEFAULT_MONITOR_S
