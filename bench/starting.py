"""How long 100 replicas on one host take to run, against a bare loop over conmon and crun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import median

from bench.cluster import Cluster
from bench.floor import COMMAND
from bench.report import Figure

AT_MOST = 3.0
# Killed at once when the service is removed: a sleep that is process 1 does not hear SIGTERM.
_ARGUMENTS = ("--constraint", "node.hostname==h1", "--stop-signal", "KILL")


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    count, rounds = (20, 1) if quick else (100, 3)
    floors: list[float] = []
    plain: list[float] = []
    published: list[float] = []
    for _ in range(rounds):
        floors.append(_floor(cluster, count))
        plain.append(_service(cluster, count))
        published.append(_service(cluster, count, "-p", "8080:80"))
        floors.append(_floor(cluster, count))
    floor = median(floors)
    for name, times in (("no port", plain), ("with -p", published)):
        yield Figure(
            name=f"{count} replicas from create to running, {name}",
            measured=median(times),
            unit="s",
            peer=floor,
            at_most=AT_MOST,
        )


def _floor(cluster: Cluster, count: int) -> float:
    answer = cluster.run("h1", "python", "-m", "bench.floor", str(count))
    return float(json.loads(answer)["seconds"])


def _service(cluster: Cluster, count: int, *arguments: str) -> float:
    began = cluster.create("start", "--replicas", str(count), *_ARGUMENTS, *arguments, "busybox", *COMMAND)
    seconds = cluster.wait_running("start", count) - began
    cluster.remove("start", "h1")
    return seconds
