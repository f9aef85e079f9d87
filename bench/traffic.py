"""Requests per second through a published port, against the same container's own address.

One nginx on h1. Straight is, on h1, its own address on the gateway network, and on another host its address
on the ingress network, through that host's own leg in the overlay. What the overlay costs is the last line:
the container there against the machine's nginx, the same program, in h1's own network.
"""

from __future__ import annotations

import pathlib
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory

from bench import wrk
from bench.cluster import Cluster
from bench.report import Figure
from swarm.base.errors import SwarmError
from swarm.lab import host

AT_LEAST = 0.8
PORT = 8080
_NGINX = """daemon off;
user www-data;
worker_processes 1;
pid PID;
error_log stderr warn;
events { worker_connections 4096; }
http {
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000;
    server {
        listen 80 backlog=4096;
        location / { return 200 "$hostname\\n"; }
    }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way to the container, and the straight one that it is compared with; both `address:port`."""

    name: str
    client: str
    way: str
    straight: str


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    cluster.create("shop", "--constraint", "node.hostname==h1", "-p", f"{PORT}:80", "nginx")
    cluster.wait_running("shop", 1)
    pid = str(cluster.task("shop")["Status"]["ContainerStatus"]["PID"])
    h1, h2 = cluster.lab.address("h1"), cluster.lab.address("h2")
    near, far = f"{_own_address(cluster, pid)}:80", f"{_overlay_address(cluster)}:80"
    through = "requests through a published port"
    for path in (
        Path(name=f"{through}, same host", client="h1", way=f"{h1}:{PORT}", straight=near),
        Path(name=f"{through}, by localhost", client="h1", way=f"127.0.0.1:{PORT}", straight=near),
        Path(name=f"{through}, from another host", client="h2", way=f"{h1}:{PORT}", straight=far),
        Path(name=f"{through}, by a host without replica", client="h2", way=f"{h2}:{PORT}", straight=far),
    ):
        yield _compare(cluster, path, AT_LEAST, quick=quick)
    with _in_host_network(cluster, h1):
        bare = Path(name="requests through the overlay", client="h2", way=far, straight=f"{h1}:80")
        yield _compare(cluster, bare, None, quick=quick)
    cluster.remove("shop", "h1")


@contextmanager
def _in_host_network(cluster: Cluster, address: str) -> Iterator[None]:
    """nginx without a container, on port 80 of h1."""
    with TemporaryDirectory(prefix="swarm-bench-") as directory:
        pid_file, configuration = pathlib.Path(directory) / "pid", pathlib.Path(directory) / "conf"
        configuration.write_text(_NGINX.replace("PID", str(pid_file)))
        start = cluster.lab.entry("h1", ("nginx", "-c", str(configuration))).command()
        with subprocess.Popen(start, env=host.environment(), stdin=subprocess.DEVNULL) as process:
            cluster.wait(lambda: process.poll() is not None or _answers(address), f"nginx at {address}")
            try:
                yield
            finally:
                cluster.run("h1", "kill", pid_file.read_text().strip())


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 80), timeout=1.0):
            return True
    except OSError:
        return False


def _compare(cluster: Cluster, path: Path, at_least: float | None, *, quick: bool) -> Figure:
    rounds = 1 if quick else 10
    through: list[float] = []
    direct: list[float] = []
    for _ in range(rounds):
        direct.append(wrk.ask(cluster, path.client, path.straight).requests)
        through.append(wrk.ask(cluster, path.client, path.way).requests)
    return Figure(
        name=path.name,
        measured=median(through),
        unit="/s",
        peer=median(direct),
        at_least=at_least,
    )


def _overlay_address(cluster: Cluster) -> str:
    """The container's address on the ingress network."""
    attachment = cluster.task("shop")["NetworksAttachments"][0]
    return str(attachment["Addresses"][0]).partition("/")[0]


def _own_address(cluster: Cluster, pid: str) -> str:
    """The container's address on h1's gateway network."""
    said = cluster.run(
        "h1", "nsenter", f"--target={pid}", "--net", "ip", "-4", "-o", "route", "get", "192.0.2.1"
    )
    found = re.search(r" src ([\d.]+)", said)
    if found is None:
        raise SwarmError(f"the container's own address is not in: {said}")
    return found[1]
