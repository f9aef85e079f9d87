"""Requests per second through a published port, against the same container's own address.

One nginx on h1. From h1 the container's address on the gateway network is reached as it is; for h2 a route
to that address by way of h1 is made, which no user would have, so that nothing translates or wraps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from bench.cluster import Cluster
from bench.report import Figure
from swarm.base.errors import SwarmError

AT_LEAST = 0.8
PORT = 8080
CONNECTIONS = "16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way to the container, and the straight one that it is compared with."""

    name: str
    client: str
    published: str


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    cluster.create("shop", "--constraint", "node.hostname==h1", "-p", f"{PORT}:80", "nginx")
    cluster.wait_running("shop", 1)
    straight = f"{_own_address(cluster)}:80"
    route = (f"{straight.partition(':')[0]}/32", "via", cluster.lab.address("h1"))
    cluster.run("h2", "ip", "route", "add", *route)
    h1, h2 = cluster.lab.address("h1"), cluster.lab.address("h2")
    paths = (
        Path(name="same host", client="h1", published=f"{h1}:{PORT}"),
        Path(name="same host, by localhost", client="h1", published=f"127.0.0.1:{PORT}"),
        Path(name="from another host", client="h2", published=f"{h1}:{PORT}"),
        Path(name="by a host without a replica", client="h2", published=f"{h2}:{PORT}"),
    )
    for path in paths:
        yield _compare(cluster, path, straight, quick=quick)
    cluster.run("h2", "ip", "route", "del", *route)
    cluster.remove("shop", "h1")


def _compare(cluster: Cluster, path: Path, straight: str, *, quick: bool) -> Figure:
    rounds, seconds = (1, 1) if quick else (5, 2)
    through: list[float] = []
    direct: list[float] = []
    for _ in range(rounds):
        direct.append(_load(cluster, path.client, straight, seconds))
        through.append(_load(cluster, path.client, path.published, seconds))
    return Figure(
        name=f"requests through a published port, {path.name}",
        measured=median(through),
        unit="/s",
        peer=median(direct),
        at_least=AT_LEAST,
    )


def _load(cluster: Cluster, client: str, target: str, seconds: int) -> float:
    said = cluster.run(client, "wrk", "-t", "1", "-c", CONNECTIONS, "-d", f"{seconds}s", f"http://{target}/")
    found = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if found is None or "Non-2xx" in said:
        raise SwarmError(f"wrk against {target} from {client}: {said}")
    return float(found[1])


def _own_address(cluster: Cluster) -> str:
    """The container's address on h1's gateway network."""
    pid = cluster.task("shop")["Status"]["ContainerStatus"]["PID"]
    said = cluster.run(
        "h1", "nsenter", f"--target={pid}", "--net", "ip", "-4", "-o", "route", "get", "192.0.2.1"
    )
    found = re.search(r" src ([\d.]+)", said)
    if found is None:
        raise SwarmError(f"the container's own address is not in: {said}")
    return found[1]
