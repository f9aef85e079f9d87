"""How long `swarm service ls` takes, the start of its interpreter included; and answers that are polled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import median

from bench.cluster import Cluster
from bench.report import Figure

AT_MOST_MS = 150.0
SERVICES, ROUNDS = 100, 40


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    cluster.create("listed", "--replicas", "2", "busybox", "sleep", "100000")
    cluster.wait_running("listed", 2)
    times = _repeat(cluster, 5 if quick else 30, "swarm", "service", "ls")
    bare = _repeat(cluster, 5 if quick else 30, "python", "-c", "pass")
    cluster.remove("listed")
    yield Figure(name="swarm service ls", measured=median(times), unit="ms", at_most=AT_MOST_MS)
    yield Figure(name="the same, slowest", measured=max(times), unit="ms")
    yield Figure(name="an interpreter that does nothing", measured=median(bare), unit="ms")
    for number in range(SERVICES):
        cluster.create(f"poll{number}", "--replicas", "1", "--constraint", "node.hostname==nobody", "busybox")
    floor = cluster.answer_ms("/version", ROUNDS)
    for path, query in (("/services", {}), ("/services", {"status": "true"}), ("/tasks", {})):
        yield Figure(
            name=f"GET {path}{' with counts' if query else ''}, {SERVICES} of them; against GET /version",
            measured=cluster.answer_ms(path, ROUNDS, **query),
            unit="ms",
            peer=floor,
        )
    for number in range(SERVICES):
        cluster.run("h1", "swarm", "service", "rm", f"poll{number}")


def _repeat(cluster: Cluster, times: int, *argv: str) -> list[float]:
    found = json.loads(cluster.run("h1", "python", "-m", "bench.repeat", str(times), *argv))
    return [1000 * float(seconds) for seconds in found]
