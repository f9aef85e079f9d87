"""A worker dies with networks of both kinds on it: swarmd by SIGKILL, the host by a power cut.

Afterwards its tasks reach everybody, everybody reaches them, and in the end nothing of the networks is left.
NETWORK_SEED chooses the moments.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from swarm.lab.host import log_path
from tests.integration.cluster import Cluster, Json
from tests.integration.test_networks import FAST, address_on, asks, network, sandboxes, settled

pytestmark = pytest.mark.root
KINDS = {"plain": (), "sealed": ("--opt", "encrypted")}
STEADY_S = 40.0
PORT = 8080
TURNS = 3


@pytest.fixture
def chance() -> random.Random:
    return random.Random(int(os.environ.get("NETWORK_SEED", "7")))


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[str]:
    """A task on each host, on both networks and behind a published port."""
    with network(cluster, "plain"), network(cluster, "sealed", *KINDS["sealed"]):
        both = (option for name in KINDS for option in ("--network", name))
        yield cluster.create("web", "--mode", "global", "-p", f"{PORT}:80", *both, *FAST)
        cluster.swarm("h1", "service", "rm", "web")
    cluster.wait_clean()


def all_reach_all(cluster: Cluster) -> None:
    """In each network, from each task; and every host's port leads to every task."""
    tasks = cluster.wait_running("web", len(cluster.hosts), STEADY_S)
    for asker in tasks:
        for other in tasks:
            for name in KINDS:
                address, short = address_on(other, name), other["ID"][:12]
                cluster.wait_until(
                    lambda asker=asker, address=address, short=short: asks(cluster, asker, address) == short,
                    f"{address} on {name} answers {asker['ID']}",
                    20,
                )
    names = {task["ID"][:12] for task in tasks}
    for host in cluster.hosts:
        cluster.wait_until(
            lambda host=host: {cluster.url_get(host, PORT, timeout_s=2.0) for _ in names} == names,
            f"{host} leads to all",
        )


def meanwhile(act: Callable[[], object], delay_s: float) -> threading.Timer:
    timer = threading.Timer(delay_s, act)
    timer.start()
    return timer


def on_h2(cluster: Cluster) -> list[Json]:
    names = cluster.node_names()
    return [task for task in cluster.running("web") if names[task["NodeID"]] == "h2"]


def test_swarmd_is_killed_while_networks_come_and_go(
    cluster: Cluster, web: str, chance: random.Random
) -> None:
    all_reach_all(cluster)
    for _ in range(TURNS):
        made = cluster.swarm("h1", "network", "create", "passing").strip()
        death = meanwhile(lambda: cluster.kill_daemon("h2"), chance.uniform(0.2, 2.5))
        cluster.swarm("h1", "service", "update", "-q", "-d", "--network-add", "passing", "web")
        death.join()
        cluster.wait_daemon("h2")
        settled(cluster, "web", len(KINDS) + 1, len(cluster.hosts))
        all_reach_all(cluster)
        death = meanwhile(lambda: cluster.kill_daemon("h2"), chance.uniform(0.2, 2.5))
        cluster.swarm("h1", "service", "update", "-q", "-d", "--network-rm", "passing", "web")
        death.join()
        cluster.wait_daemon("h2")
        settled(cluster, "web", len(KINDS), len(cluster.hosts))
        all_reach_all(cluster)
        cluster.wait_until(
            lambda: cluster.run("h1", "swarm", "network", "rm", "passing").returncode == 0,
            "nobody uses it any more",
            STEADY_S,
        )
        cluster.wait_until(
            lambda made=made: not sandboxes(cluster, made), "it is gone from all hosts", STEADY_S
        )


def test_power_cuts_leave_no_network_that_exists_already(
    cluster: Cluster, web: str, chance: random.Random
) -> None:
    all_reach_all(cluster)
    for starting_s in (0.0, chance.uniform(0.3, 2.0), chance.uniform(0.3, 2.0)):
        (before,) = on_h2(cluster)
        cluster.lab.kill("h2")
        cluster.lab.start("h2")
        if starting_s:  # and once more while it is coming up
            meanwhile(lambda: cluster.lab.kill("h2"), starting_s).join()
            cluster.lab.start("h2")
        cluster.wait_until(lambda: cluster.node_states()["h2"] == "ready", "h2 is ready", STEADY_S)
        cluster.wait_until(
            lambda old=before["ID"]: [t for t in on_h2(cluster) if t["ID"] != old], "h2 runs anew", STEADY_S
        )
        all_reach_all(cluster)
    said = log_path(cluster.lab.name, "h2").read_text(errors="replace")
    assert "exist" not in said.lower(), [line for line in said.splitlines() if "exist" in line.lower()][-5:]
