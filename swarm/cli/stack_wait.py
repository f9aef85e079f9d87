"""Waiting for a stack's services: one line for each, until all have converged, one has failed, or time is up.

Three requests a look, however many services there are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.api.client import ApiError, Client
from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.cli.converge import Convergence
from swarm.cli.converge_lines import JOB, OVERALL, VERIFY, Converging, Line
from swarm.cli.progress import display_for
from swarm.cli.stack_objects import named_stack

Json = Mapping[str, Any]

_LOOK_EVERY_S = 0.2


class StackWatch:
    """`services` are names by id; of those in `settled`, which were not changed, running is enough.

    `is_back`: they go back to what they were, so a rollback is no failure, and tasks from before count.
    """

    def __init__(
        self,
        client: Client,
        stack: str,
        services: Mapping[str, str],
        *,
        settled: frozenset[str] = frozenset(),
        is_back: bool = False,
        quiet: bool = False,
    ) -> None:
        self._client = client
        self._filters = named_stack(stack)
        self._names = services
        self._settled = settled
        self._task_filters = self._filters | ({} if is_back else {"_up-to-date": ["true"]})
        self._machines = {id: Convergence(is_rollback=is_back) for id in services}
        self._told: dict[str, str] = {}
        self._display = display_for(quiet=quiet, shown=frozenset(services.values()))

    def wait(self, timeout_s: float) -> None:
        """Raises SwarmError: a service failed, is gone, or has not converged in time."""
        clock = SystemClock()
        until = clock.monotonic() + timeout_s
        while open_ones := self._look(clock.monotonic()):
            if clock.monotonic() >= until:
                why = "; ".join(self._reason(id) for id in open_ones)
                raise SwarmError(f"not as wanted after {timeout_s:g} s: {why}")
            time.sleep(_LOOK_EVERY_S)

    def _look(self, now_s: float) -> list[str]:
        """Draw what there is; the services that are not done yet."""
        services = {s["ID"]: s for s in self._client.get("/services", filters=self._filters)}
        tasks: dict[str, list[Json]] = {}
        for task in self._client.get("/tasks", filters=self._task_filters):
            tasks.setdefault(task["ServiceID"], []).append(task)
        nodes, not_done, lines = self._client.get("/nodes"), [], []
        for id, name in self._names.items():
            if id not in services:
                raise SwarmError(f"service {name} was removed meanwhile")
            view = self._machines[id].handle(services[id], tasks.get(id, []), nodes, now_s)
            done = view.done or (name in self._settled and self._machines[id].has_converged)
            lines.append(self._line(name, view, done=done))
            if view.failure:
                self._display(lines)
                raise SwarmError(f"{name}: {view.failure}")
            if not done:
                not_done.append(id)
        self._display(lines)
        return not_done

    def _line(self, name: str, view: Converging, *, done: bool) -> Line:
        text = "converged" if done else said(view.lines) or self._told.get(name, "")
        self._told[name] = text
        return Line(id=name, text=text)

    def _reason(self, id: str) -> str:
        """What the manager finds about a service that does not converge."""
        name = self._names[id]
        try:
            findings = self._client.get(f"/services/{id}/explain")["Findings"]
        except ApiError:
            findings = []
        found = findings[0]["Text"] if findings else self._told.get(name, "")
        return f"{name}: {found} (swarm service explain {name})"


def said(lines: Sequence[Line]) -> str:
    """One line of what a single service's display would show."""
    texts = {line.id: line.text for line in lines}
    errors = [line.text for line in lines if line.is_error]
    progress = texts.get(OVERALL) or texts.get(JOB) or ""
    if VERIFY in texts:
        return "running, verifying" if texts[VERIFY].startswith("Waiting") else texts[VERIFY]
    return f"{progress} ({errors[0]})" if errors else progress
