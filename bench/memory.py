"""What swarmd of a worker takes of the host's memory: idle, and with containers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.cluster import Cluster
from bench.floor import COMMAND
from bench.report import Figure

AT_MOST_MIB = 90.0
SETTLE_S = 5.0
"""After the last task runs, before memory is read."""


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    yield from _figures(cluster, "idle", AT_MOST_MIB)
    count = 10 if quick else 50
    target = ("--constraint", "node.hostname==h2", "--stop-signal", "KILL")
    cluster.create("held", "--replicas", str(count), *target, "busybox", *COMMAND)
    cluster.wait_running("held", count)
    yield from _figures(cluster, f"{count} containers", None)
    cluster.remove("held", "h2")


def _figures(cluster: Cluster, when: str, at_most: float | None) -> Iterator[Figure]:
    time.sleep(SETTLE_S)
    held = _held_mib(cluster.daemon_pid("h2"))
    yield Figure(name=f"RSS of a worker's swarmd, {when}", measured=held["Rss"], unit="MiB", at_most=at_most)
    yield Figure(name=f"PSS, {when}", measured=held["Pss"], unit="MiB")


def _held_mib(pid: int) -> dict[str, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines}
