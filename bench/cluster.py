"""A lab with a cluster in it, as the figures need it.

In: names, counts. Out: services that run, the numbers of the processes behind them. Invariant: every wait
has a deadline, and nothing of the lab is left at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from swarm.api.client import Client
from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.lab import demo_image, host
from swarm.lab.lab import Lab

IMAGES = ("busybox", "nginx")
DEADLINE_S = 180.0
LOOK_EVERY_S = 0.05


class Cluster:
    """h1 is the manager, the other hosts are workers; `IMAGES` are on all of them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.clock = SystemClock()
        self._api = Client(f"unix://{lab.socket_path('h1')}")

    def run(self, name: str, *argv: str, timeout_s: float = DEADLINE_S) -> str:
        """The output of a program on a host. Raises: SwarmError when it fails."""
        done = self.lab.exec(name, argv, timeout=timeout_s)
        if done.returncode != 0:
            raise SwarmError(f"{' '.join(argv)} on {name}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def create(self, name: str, *arguments: str) -> float:
        """Create a service without waiting for its tasks; returns when the request was sent."""
        began = self.clock.monotonic()
        self.run("h1", "swarm", "service", "create", "-d", "--name", name, *arguments)
        return began

    def wait_running(self, name: str, count: int) -> float:
        """Wait until the manager counts `count` running tasks; returns when it did."""
        return self.wait(lambda: self._running(name) == count, f"{count} tasks of {name} to run")

    def remove(self, name: str, *hosts: str) -> None:
        """Remove the service and wait until the hosts have nothing left of its containers."""
        self.run("h1", "swarm", "service", "rm", name)
        for host_name in hosts:
            self.wait(partial(self._is_empty, host_name), f"the containers on {host_name} to go")

    def task(self, name: str) -> dict[str, Any]:
        """The first task of a service, as the API shows it."""
        return self.tasks(name)[0]

    def service(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get(f"/services/{name}")
        return found

    def tasks(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.get("/tasks", filters=f'{{"service":["{name}"]}}')
        return found

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.get("/nodes")
        return found

    def answer_ms(self, path: str, rounds: int, **query: str) -> float:
        """How long the manager takes to answer one GET, the middle one of `rounds`."""
        took = []
        for _ in range(rounds):
            began = self.clock.monotonic()
            self._api.get(path, **query)
            took.append(self.clock.monotonic() - began)
        return 1000 * median(took)

    def daemon_pid(self, name: str) -> int:
        """The pid of a host's swarmd, as this machine numbers it."""
        first = host.running_pid(self.lab.name, name)
        for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            if "swarm.cli.swarmd" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        raise SwarmError(f"no swarmd runs on {name}")

    def wait(self, is_so: Callable[[], bool], what: str) -> float:
        deadline = self.clock.monotonic() + DEADLINE_S
        while not is_so():
            if self.clock.monotonic() > deadline:
                raise SwarmError(f"waited {DEADLINE_S:.0f} s in vain for {what}")
            time.sleep(LOOK_EVERY_S)
        return self.clock.monotonic()

    def _is_empty(self, name: str) -> bool:
        return not self.run(name, "swarm", "container", "ls", "-a", "-q")

    def _running(self, name: str) -> int:
        services = self._api.get("/services", status="true", filters=f'{{"name":["{name}"]}}')
        return int(services[0]["ServiceStatus"]["RunningTasks"]) if services else 0


@contextmanager
def cluster(name: str, hosts: int) -> Iterator[Cluster]:
    """A lab called `name` with a cluster of `hosts` hosts, for the length of a `with` block."""
    with Lab(name) as lab, TemporaryDirectory(prefix=f"swarm-{name}-") as directory:
        lab.up(hosts=hosts)
        made = Cluster(lab)
        names = [f"h{number}" for number in range(1, hosts + 1)]
        made.run("h1", "swarm", "init", "--advertise-addr", lab.address("h1"))
        token = made.run("h1", "swarm", "join-token", "-q", "worker")
        for worker in names[1:]:
            made.run(worker, "swarm", "join", "--token", token, f"{lab.address('h1')}:2377")
        for image in IMAGES:
            archive = Path(directory) / f"{image}.tar"
            demo_image.build(image, archive)
            for each in names:
                made.run(each, "swarm", "image", "load", "-q", "-i", str(archive))
        yield made
