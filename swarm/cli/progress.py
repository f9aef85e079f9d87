"""The display of a converging service: polls the API, draws what `converge` says, until it is done.

On a terminal the lines are redrawn in place, with bars where it is wide enough; elsewhere only changes of the
overall line, errors and the verdict are printed, once each.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Container, Sequence
from typing import TextIO

from swarm.api.client import Client
from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.cli.converge import Convergence
from swarm.cli.converge_lines import JOB, OVERALL, ROLLBACK, VERIFY, Converging, Line

_POLL_S = 0.2
_BAR_CELLS = 50
_WIDE = 110
_PLAIN = (OVERALL, VERIFY, ROLLBACK, JOB)


def watch_service(
    client: Client,
    service_id: str,
    *,
    quiet: bool = False,
    is_rollback: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the service has converged; `is_rollback` if the user asked for one.

    Raises:
        SwarmError: its update was paused or rolled back, its job failed, or the service is gone.
    """
    convergence, clock = Convergence(is_rollback=is_rollback), SystemClock()
    display = display_for(quiet=quiet)
    try:
        while True:
            view = _poll(client, service_id, convergence, clock.monotonic())
            display(view.lines)
            if view.failure:
                raise SwarmError(view.failure)
            if view.done:
                return
            pause(_POLL_S)
    except KeyboardInterrupt:
        if not convergence.has_converged:
            print("\nOperation continuing in background.", flush=True)
            print(f"Use `swarm service ps {service_id}` to check progress.", flush=True)


def _poll(client: Client, service_id: str, convergence: Convergence, now_s: float) -> Converging:
    service = client.get(f"/services/{service_id}", insertDefaults=False)
    filters = {"service": {service["ID"]: True}, "_up-to-date": {"true": True}}
    tasks = client.get("/tasks", filters=filters)
    return convergence.handle(service, tasks, client.get("/nodes"), now_s)


def display_for(*, quiet: bool, shown: Container[str] = _PLAIN) -> Callable[[Sequence[Line]], None]:
    """What shows lines on this output: where it is no terminal, those with ids in `shown`, and errors."""
    if quiet:
        return lambda lines: None
    if sys.stdout.isatty():
        return TerminalDisplay(sys.stdout, os.get_terminal_size(sys.stdout.fileno()).columns)
    return PlainDisplay(sys.stdout, shown)


class PlainDisplay:
    """For files and pipes: a line when it says something new."""

    def __init__(self, out: TextIO, shown: Container[str] = _PLAIN) -> None:
        self._out = out
        self._shown = shown
        self._last: dict[str, str] = {}

    def __call__(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if not (line.is_error or line.id in self._shown):
                continue
            # The count-down says nothing new each second.
            key = "waiting" if line.text.startswith("Waiting ") else line.text
            if self._last.get(line.id) != key:
                self._last[line.id] = key
                print(f"{line.id}: {line.text}", file=self._out, flush=True)


class TerminalDisplay:
    """For terminals: every id keeps its line, which is redrawn in place."""

    def __init__(self, out: TextIO, columns: int) -> None:
        self._out = out
        self._columns = columns
        self._lines: dict[str, Line] = {}

    def __call__(self, lines: Sequence[Line]) -> None:
        drawn = len(self._lines)
        self._lines |= {line.id: line for line in lines}
        text = f"\x1b[{drawn}A" if drawn else ""
        for line in self._lines.values():
            text += f"\x1b[2K\r{self._text(line)}\n"
        self._out.write(text)
        self._out.flush()

    def _text(self, line: Line) -> str:
        text = f"{line.id}: {line.text} "
        if line.current is not None and self._columns > _WIDE:
            cells = line.current * _BAR_CELLS // line.steps
            text += f"[{'=' * cells}>{' ' * (_BAR_CELLS - cells)}] "
        return text[: max(self._columns - 1, 1)]
