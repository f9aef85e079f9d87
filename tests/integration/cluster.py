"""A lab as a user meets it: commands on its hosts, requests to its ports, and what is left on them.

In: a lab that is up. Out: outputs, objects of the API, answers of services. Invariant: every wait has a
deadline and says what it waited for; nothing sleeps for a time that was guessed.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from swarm.api.client import Client
from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.lab.lab import Lab

T = TypeVar("T")
Json = dict[str, Any]

POLL_S = 0.05
COMMAND_S = 30.0

# What a task leaves on its host if it is not tidied away. Run inside the host.
_TRACES = r"""
ls -d /run/swarm/containers/* /run/swarm/crun/* /run/swarm/exits/* /run/swarm/network/* 2>/dev/null
ls -d /run/swarm/netns/* 2>/dev/null | grep -v "^/run/swarm/netns/ov-"
ls -d /var/lib/swarm/containers/* /var/lib/swarm/worker/tasks/* 2>/dev/null
pgrep -a conmon
pgrep -a haproxy
pgrep -af "swarm[.]overlay[.](dns|relay)"
ip -o link show | grep -o "swg[a-z0-9]*"
find /sys/fs/cgroup -mindepth 2 -maxdepth 3 -type d -path "*/swarm/*"
grep -E "/var/lib/swarm/containers|/run/swarm/netns/[^o]" /proc/self/mounts
nft list table ip swarm 2>/dev/null | grep -E "elements|chain port-"
true
"""
# What a node that is in no cluster must not have, in addition.
_MEMBER_TRACES = r"""
ip -o link show | grep -oE "(swarm-gw|swl)[a-z0-9]*"
ls -d /run/swarm/netns/* /var/lib/swarm/node/* /var/lib/swarm/manager /var/lib/swarm/etcd 2>/dev/null
pgrep -a etcd
nft list table ip swarm 2>/dev/null
ss -Hltn | grep -E ":(2377|2378|2381|2382) "
true
"""


class Cluster:
    """Hosts h1 (the manager) and up."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = tuple(status.name for status in lab.ls())
        self._clock = SystemClock()

    # --- making it -------------------------------------------------------------------------------------

    def load(self, archive: Path) -> None:
        self.on_all(lambda host: self.swarm(host, "image", "load", "-i", str(archive)))

    def found(self) -> None:
        """`swarm init` on the first host, `swarm join` on the others."""
        first, *others = self.hosts
        self.swarm(first, "init", "--advertise-addr", self.lab.address(first))
        token = self.swarm(first, "join-token", "-q", "worker").strip()
        address = f"{self.lab.address(first)}:2377"
        self.on_all(lambda host: self.swarm(host, "join", "--token", token, address), others)

    def on_all(self, act: Callable[[str], T], hosts: Iterable[str] | None = None) -> dict[str, T]:
        """`act` on every host, at the same time."""
        chosen = tuple(hosts or self.hosts)
        with ThreadPoolExecutor(len(chosen)) as pool:
            return dict(zip(chosen, pool.map(act, chosen), strict=True))

    # --- commands --------------------------------------------------------------------------------------

    def run(self, host: str, *argv: str, timeout: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
        return self.lab.exec(host, argv, timeout=timeout)

    def output(self, host: str, *argv: str, timeout: float = COMMAND_S) -> str:
        done = self.run(host, *argv, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(argv)} on {host}: {done.stderr or done.stdout}"
        return done.stdout

    def swarm(self, host: str, *arguments: str, timeout: float = COMMAND_S) -> str:
        return self.output(host, "swarm", *arguments, timeout=timeout)

    def docker(self, host: str, *arguments: str, timeout: float = COMMAND_S) -> str:
        return self.output(host, "docker", *arguments, timeout=timeout)

    def refused(self, host: str, *arguments: str) -> str:
        """The one line with which a `swarm` command fails."""
        done = self.run(host, "swarm", *arguments)
        assert done.returncode != 0, f"{' '.join(arguments)} succeeded: {done.stdout}"
        assert len(done.stderr.strip().splitlines()) == 1, f"{' '.join(arguments)}: {done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr.strip()

    def create(self, name: str, *arguments: str, image: str = "web", command: Iterable[str] = ()) -> str:
        """A detached service; its id."""
        return self.swarm(
            self.hosts[0], "service", "create", "-d", "--name", name, *arguments, image, *command
        ).strip()

    # --- the API ---------------------------------------------------------------------------------------

    def client(self, host: str = "") -> Client:
        return Client(f"unix://{self.lab.socket_path(host or self.hosts[0])}", timeout_s=COMMAND_S)

    def get(self, path: str, host: str = "", **query: object) -> Any:
        with self.client(host) as client:
            return client.get(path, **query)

    def tasks(self, service: str) -> list[Json]:
        found: list[Json] = self.get("/tasks", filters={"service": [service]})
        return found

    def running(self, service: str) -> list[Json]:
        return [t for t in self.tasks(service) if is_running(t)]

    def node_names(self) -> dict[str, str]:
        return {node["ID"]: node["Description"]["Hostname"] for node in self.get("/nodes")}

    def hosts_of(self, tasks: Iterable[Json]) -> list[str]:
        names = self.node_names()
        return sorted(names[task["NodeID"]] for task in tasks)

    def node_states(self) -> dict[str, str]:
        return {n["Description"]["Hostname"]: n["Status"]["State"] for n in self.get("/nodes")}

    def objects(self) -> set[str]:
        """What a refused command must not change."""
        found = [*self.get("/services"), *self.get("/networks"), *self.get("/nodes")]
        return {item.get("ID") or item["Id"] for item in found}

    # --- waiting ---------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
        """The first true value of `condition`. A daemon that does not answer counts as not yet."""
        deadline = self._clock.monotonic() + timeout_s
        while True:
            last: object
            try:
                if value := condition():
                    return value
                last = value
            except (SwarmError, OSError) as error:
                last = error
            assert self._clock.monotonic() < deadline, f"not within {timeout_s:g} s: {what} (last: {last!r})"
            time.sleep(POLL_S)

    def wait_running(self, service: str, count: int, timeout_s: float = 20.0) -> list[Json]:
        """Exactly `count` tasks run, and no other is meant to."""

        def converged() -> list[Json]:
            tasks = self.tasks(service)
            wanted = [t for t in tasks if t["DesiredState"] in ("ready", "running")]
            alive = [t for t in tasks if t["Status"]["State"] == "running"]
            done = len(wanted) == len(alive) == count and all(map(is_running, wanted))
            return wanted if done else []

        if count == 0:
            self.wait_until(lambda: not self.running(service), f"{service} has no task", timeout_s)
            return []
        return self.wait_until(converged, f"{count} tasks of {service} run", timeout_s)

    # --- traffic ---------------------------------------------------------------------------------------

    def url_get(self, host: str, port: int, path: str = "/", timeout_s: float = 5.0) -> str:
        """The answer at a port of `host`, asked for from this machine."""
        return http_get(self.lab.address(host), port, path, timeout_s)

    def local_get(self, host: str, port: int) -> str:
        """The answer at the host's own 127.0.0.1."""
        url = f"http://127.0.0.1:{port}/"
        return self.output(host, "busybox", "wget", "-q", "-O", "-", url).strip()

    # --- what there is on a host -----------------------------------------------------------------------

    def daemon_pid(self, host: str) -> int:
        return int(self.output(host, "pgrep", "-P", "1", "-f", "swarm.cli.swarmd").strip())

    def kill_daemon(self, host: str) -> None:
        self.output(host, "kill", "-9", str(self.daemon_pid(host)))

    def wait_daemon(self, host: str) -> None:
        """Until the host's swarmd answers."""
        self.wait_until(lambda: self.get("/info", host), f"swarmd on {host} answers")

    def traces(self, host: str, *, of_member: bool = False) -> list[str]:
        """What tasks (with `of_member`: the membership too) left on a host."""
        script = _TRACES + (_MEMBER_TRACES if of_member else "")
        return self.output(host, "sh", "-c", script).splitlines()

    def wait_clean(self, *hosts: str, of_member: bool = False) -> None:
        for host in hosts or self.hosts:
            deadline = self._clock.monotonic() + 20
            while found := self.traces(host, of_member=of_member):
                assert self._clock.monotonic() < deadline, f"{host} keeps {found}"
                time.sleep(POLL_S)


class Probe:
    """Asks a port again and again, on a new connection each time, until the block ends.

    A refused connection is tried once more: a task counts as running, and gets connections, as soon as its
    process runs, so one may come before its program listens. A second refusal, or silence, is a failure.
    """

    def __init__(self, address: str, port: int, timeout_s: float = 5.0) -> None:
        self._address = address
        self._port = port
        self._timeout_s = timeout_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[str] = []
        self.failures: list[str] = []
        self.refused = 0
        self.slowest_s = 0.0

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        clock = SystemClock()
        while not self._ended.wait(0.02):
            began = clock.monotonic()
            try:
                self.answers.append(self._ask())
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{error!r} after {clock.monotonic() - began:.2f} s")
            self.slowest_s = max(self.slowest_s, clock.monotonic() - began)

    def _ask(self) -> str:
        try:
            return http_get(self._address, self._port, "/", self._timeout_s)
        except ConnectionRefusedError:
            self.refused += 1
            return http_get(self._address, self._port, "/", self._timeout_s)


def short(tasks: Iterable[Json]) -> set[str]:
    """The names that `web` answers: its hostname, the task's id cut to 12."""
    return {task["ID"][:12] for task in tasks}


def logs(cluster: Cluster, name: str, *options: str) -> str:
    """What the service's tasks wrote to both of their outputs."""
    done = cluster.run("h1", "swarm", "service", "logs", "--raw", *options, name)
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def wait_ended(cluster: Cluster, name: str, state: str, timeout_s: float = 15.0) -> Json:
    """The service's first task that has ended as `state`."""

    def found() -> Json | None:
        return next((t for t in cluster.tasks(name) if t["Status"]["State"] == state), None)

    return cluster.wait_until(found, f"a task of {name} is {state}", timeout_s)


@contextmanager
def service(cluster: Cluster, name: str, *arguments: str, command: Iterable[str] = ()) -> Iterator[str]:
    """A detached service that is removed at the end."""
    yield cluster.create(name, *arguments, command=command)
    cluster.swarm("h1", "service", "rm", name)


def is_running(task: Json) -> bool:
    return task["Status"]["State"] == task["DesiredState"] == "running"


def http_get(address: str, port: int, path: str, timeout_s: float) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


def udp_ask(address: str, port: int, text: str = "?") -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2.0)
        client.sendto(text.encode(), (address, port))
        return client.recv(1500).decode().strip()


def json_lines(text: str) -> list[Json]:
    return [json.loads(line) for line in text.splitlines()]
