"""How soon a change of a service's tasks is known on every host: asked there, in a task's network.

A task that has come counts from when its agent saw it run, one that goes from when the command was given; so
the second has the manager's decision in it. Each host's answer is a figure of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from statistics import median
from typing import Any

from bench.cluster import Cluster
from bench.report import Figure
from swarm.lab import host
from swarm.lab.lab import Lab

NETWORK = "news"
AT_MOST_MS = 1000.0
_STAY = ("busybox", "sleep", "9999")


class Watcher:
    """What a name gives in the network of a task, from now on. To be used in a `with` block."""

    def __init__(self, lab: Lab, host_name: str, task_id: str, name: str) -> None:
        inside = ("nsenter", f"--net=/run/swarm/netns/{task_id}", sys.executable, "-m")
        command = lab.entry(host_name, (*inside, "bench.watch_names", name)).command()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=host.environment(), process_group=0
        )
        self._heard: list[tuple[float, list[str]]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Watcher:
        self._reader.start()
        with self._news:  # what changes before its first answer would be measured too late
            self._news.wait_for(lambda: self._heard, 10.0)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._reader.join()
        self._process.stdout.close()
        self._process.wait()

    def wait(self, addresses: Sequence[str], since: float, timeout_s: float = 10.0) -> float:
        """When, after `since`, the name first gave exactly these. Raises: TimeoutError."""

        def known() -> float | None:
            return next((at for at, found in self._heard if at > since and found == sorted(addresses)), None)

        with self._news:
            if not self._news.wait_for(lambda: known() is not None, timeout_s):
                raise TimeoutError(f"not {addresses} within {timeout_s:g} s, but {self._heard[-1:]}")
            return known() or 0.0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            heard = json.loads(line)
            with self._news:
                self._heard.append((heard["at"], heard["addresses"]))
                self._news.notify_all()


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    cluster.run("h1", "swarm", "network", "create", "-d", "overlay", NETWORK)
    cluster.create("ask", "--network", NETWORK, "--mode", "global", *_STAY)
    stop = ("--stop-signal", "KILL")
    cluster.create("shop", "--network", NETWORK, *stop, *_STAY)
    cluster.wait_running("ask", 2)
    cluster.wait_running("shop", 1)
    hosts = {node["ID"]: node["Description"]["Hostname"] for node in cluster.nodes()}
    come: list[float] = []
    gone: list[float] = []
    with ExitStack() as stack:
        watchers = [
            stack.enter_context(Watcher(cluster.lab, hosts[task["NodeID"]], task["ID"], "tasks.shop"))
            for task in cluster.tasks("ask")
        ]
        for _ in range(2 if quick else 12):
            began, tasks = _scale(cluster, 4)
            ran = max(datetime.fromisoformat(task["Status"]["Timestamp"]).timestamp() for task in tasks)
            come += [(watcher.wait(_addresses(tasks), began) - ran) * 1000 for watcher in watchers]
            began, tasks = _scale(cluster, 1)
            gone += [(watcher.wait(_addresses(tasks), began) - began) * 1000 for watcher in watchers]
    for name, times in (("a task that runs is", come), ("a task that is removed is no more", gone)):
        for what, value in (
            ("median", median(times)),
            ("95 %", _share(times, 0.95)),
            ("slowest", max(times)),
        ):
            yield Figure(
                name=f"{name} in a host's names, {what}", measured=value, unit="ms", at_most=AT_MOST_MS
            )
    cluster.run("h1", "swarm", "service", "rm", "shop")
    cluster.remove("ask", "h1", "h2")
    cluster.run("h1", "swarm", "network", "rm", NETWORK)


def _scale(cluster: Cluster, count: int) -> tuple[float, list[dict[str, Any]]]:
    """When the command was given, and the tasks that run once it is done."""
    began = cluster.clock.now().timestamp()
    cluster.run("h1", "swarm", "service", "scale", "-d", f"shop={count}")
    cluster.wait_running("shop", count)
    running = [
        task for task in cluster.tasks("shop") if task["Status"]["State"] == task["DesiredState"] == "running"
    ]
    return began, running


def _addresses(tasks: Sequence[dict[str, Any]]) -> list[str]:
    return [str(task["NetworksAttachments"][0]["Addresses"][0]).partition("/")[0] for task in tasks]


def _share(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]
