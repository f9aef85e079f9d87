"""When tasks really ran, by the tasks themselves: each writes the machine's uptime to a file of its own.

In: a folder that all hosts see. Out: from when until when each task ran, and how long two did at once.
All hosts of a lab are on one machine, so its uptime is one clock for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

Span = tuple[float, float]

BEAT = 'while true; do cut -d " " -f 1 /proc/uptime >> /seen/$HOSTNAME; usleep 20000; done'
"""What a task runs; `/seen` is the service's folder."""


def spans(folder: Path) -> Mapping[str, Span]:
    """Task (its hostname) -> the first and the last time that it wrote."""
    found = {}
    for path in folder.iterdir():
        times = [float(word) for word in path.read_text().split("\n")[:-1] if word]
        if times:
            found[path.name] = (times[0], times[-1])
    return found


def overlap_s(folder: Path) -> float:
    """The longest time for which two tasks ran at once."""
    pairs = combinations(spans(folder).values(), 2)
    return max((min(a[1], b[1]) - max(a[0], b[0]) for a, b in pairs), default=-1.0)
