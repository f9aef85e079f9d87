"""Services find each other by name and virtual address on a lab's hosts, proved by what their tasks see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from bench.news import Watcher
from swarm.base.clock import SystemClock
from swarm.lab import host
from tests.integration.cluster import Cluster, service, short

pytestmark = pytest.mark.root

CLOCK = SystemClock()
DNS_CLIENT = str(Path(__file__).with_name("dns_client.py"))
NEWS_S = 1.0
"""How long a change may take to be known to every host."""
SLACK_S = 2.0
"""For two cores that also run everything else; `python -m bench --only news` has the figures."""


@contextmanager
def network(cluster: Cluster, name: str, *options: str) -> Iterator[str]:
    made = cluster.swarm("h1", "network", "create", "-d", "overlay", *options, name).strip()
    yield made
    assert cluster.swarm("h1", "network", "rm", name) == f"{name}\n"


@pytest.fixture
def front(cluster: Cluster) -> Iterator[list[dict]]:
    """The network `front` and, on each host, a task on it that can ask: `client`."""
    with (
        network(cluster, "front"),
        service(cluster, "client", "--mode", "global", "--network", "front", "--stop-grace-period", "1s"),
    ):
        yield cluster.wait_running("client", 3, 30)
    cluster.wait_until(lambda: not cluster.tasks("client"), "client has no task", 30)


def ask(cluster: Cluster, task: dict, name: str, kind: str = "A") -> tuple[str, list[str]]:
    host = cluster.node_names()[task["NodeID"]]
    inside = ("nsenter", f"--net=/run/swarm/netns/{task['ID']}")
    heard = json.loads(cluster.output(host, *inside, sys.executable, DNS_CLIENT, "127.0.0.11", name, kind))
    return heard["code"], sorted(heard["records"])


def addresses(tasks: list[dict], network: str = "front") -> list[str]:
    return sorted(
        found.partition("/")[0]
        for task in tasks
        for attachment in task["NetworksAttachments"]
        if attachment["Network"]["Spec"]["Name"] == network
        for found in attachment["Addresses"]
    )


def virtual_address(cluster: Cluster, name: str, network: str = "front") -> str:
    network_id = cluster.get(f"/networks/{network}")["Id"]
    found = cluster.get(f"/services/{name}")["Endpoint"]["VirtualIPs"]
    return next(v["Addr"].partition("/")[0] for v in found if v["NetworkID"] == network_id)


def fetched(cluster: Cluster, task: dict, times: int, name: str = "web") -> Counter[str]:
    """Who answered, in the client's container, by name and by the image's own resolver."""
    loop = f"for i in $(seq {times}); do wget -q -O - http://{name}/; done"
    return Counter(cluster.swarm("h1", "service", "exec", task["ID"], "sh", "-c", loop).split())


def known_everywhere(cluster: Cluster, clients: list[dict], name: str, expected: list[str]) -> None:
    """Wait until every host gives `expected` for `name`."""
    for client in clients:
        cluster.wait_until(
            lambda client=client: ask(cluster, client, name)[1] == expected, f"{name} is {expected}", 10
        )


def known_after_scaling(cluster: Cluster, clients: list[dict], replicas: int) -> list[float]:
    """Seconds, on each host, until `tasks.web` gives the tasks that there are then.

    New ones count from when they ran, those that go from when the command was given.
    """
    hosts = cluster.node_names()
    with ExitStack() as stack:
        watchers = [
            stack.enter_context(Watcher(cluster.lab, hosts[client["NodeID"]], client["ID"], "tasks.web"))
            for client in clients
        ]
        before = len(cluster.running("web"))
        began = CLOCK.now().timestamp()
        cluster.swarm("h1", "service", "scale", "-d", f"web={replicas}")
        tasks = cluster.wait_running("web", replicas, 30)
        ran = max(datetime.fromisoformat(task["Status"]["Timestamp"]).timestamp() for task in tasks)
        since = ran if replicas > before else began
        return [watcher.wait(addresses(tasks), began) - since for watcher in watchers]


def test_a_service_is_found_by_its_names_and_balanced_evenly(cluster, front):
    alias = "name=front,alias=www"
    with service(cluster, "web", "--replicas", "3", "--network", alias, "--stop-grace-period", "1s"):
        tasks = cluster.wait_running("web", 3, 30)
        known_everywhere(cluster, front, "tasks.web", addresses(tasks))
        for client in front:
            assert fetched(cluster, client, 9) == dict.fromkeys(short(tasks), 3)
            for name in ("web", "www", "web.front"):
                assert ask(cluster, client, name) == ("NOERROR", [virtual_address(cluster, "web")])
            assert ask(cluster, client, "web", "AAAA") == ("NOERROR", [])
            assert ask(cluster, client, "nobody")[0] == "NXDOMAIN"
        one = tasks[0]
        full = f"web.{one['Slot']}.{one['ID']}"
        assert ask(cluster, front[0], full) == ("NOERROR", addresses([one]))
        assert ask(cluster, front[0], one["ID"][:12]) == ("NOERROR", addresses([one]))
        reverse = ".".join(reversed(addresses([one])[0].split("."))) + ".in-addr.arpa"
        assert ask(cluster, front[0], reverse, "PTR") == ("NOERROR", [f"{full}.front"])
        # A task that asks for its own service reaches itself, too.
        assert fetched(cluster, one, 6) == dict.fromkeys(short(tasks), 2)


def test_scaling_is_known_on_every_host_within_a_second(cluster, front):
    with service(cluster, "web", "--replicas", "1", "--network", "front", "--stop-grace-period", "1s"):
        cluster.wait_running("web", 1, 30)
        for replicas in (5, 2, 4):
            took = known_after_scaling(cluster, front, replicas)
            assert max(took) < NEWS_S + SLACK_S, took
            assert set(fetched(cluster, front[0], 10)) == short(cluster.running("web"))
        cluster.swarm("h1", "service", "scale", "-d", "web=0")
        cluster.wait_running("web", 0, 30)
        known_everywhere(cluster, front, "web", [])
        assert ask(cluster, front[0], "web") == ("NOERROR", [])


def test_another_networks_names_are_not_known(cluster, front):
    with (
        network(cluster, "back"),
        service(cluster, "db", "--network", "back", "--stop-grace-period", "1s"),
        service(cluster, "both", "--network", "front", "--network", "back", "--stop-grace-period", "1s"),
    ):
        db, both = cluster.wait_running("db", 1, 30), cluster.wait_running("both", 1, 30)
        known_everywhere(cluster, both, "tasks.db", addresses(db, "back"))
        known_everywhere(cluster, front, "tasks.both", addresses(both))
        assert ask(cluster, front[0], "db")[0] == "NXDOMAIN"
        assert ask(cluster, db[0], "client")[0] == "NXDOMAIN"
        assert fetched(cluster, both[0], 2, "db") == {short(db).pop(): 2}


def test_dnsrr_gives_the_tasks_themselves(cluster, front):
    options = ("--endpoint-mode", "dnsrr", "--network", "front", "--stop-grace-period", "1s")
    with service(cluster, "web", "--replicas", "2", *options):
        tasks = cluster.wait_running("web", 2, 30)
        known_everywhere(cluster, front, "web", addresses(tasks))
        assert set(fetched(cluster, front[0], 6)) == short(tasks)


def test_an_update_loses_no_request_by_name(cluster, front):
    options = ("--network", "front", "--update-order", "start-first", "--stop-grace-period", "2s")
    with service(cluster, "web", "--replicas", "2", *options):
        before = cluster.wait_running("web", 2, 30)
        known_everywhere(cluster, front, "tasks.web", addresses(before))
        loop = "until [ -e /tmp/end ]; do wget -q -O - http://web/ || echo failed; done"
        asking = cluster.lab.entry("h1", ("swarm", "service", "exec", front[0]["ID"], "sh", "-c", loop))
        with subprocess.Popen(
            asking.command(), env=host.environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                cluster.swarm("h1", "service", "update", "--force", "-q", "web", timeout=60)
                after = cluster.wait_running("web", 2, 60)
                known_everywhere(cluster, front, "tasks.web", addresses(after))
                fetched(cluster, front[0], 4)
            finally:
                cluster.swarm("h1", "service", "exec", front[0]["ID"], "touch", "/tmp/end")
                answers = Counter(process.communicate(timeout=20)[0].split())
        assert "failed" not in answers, answers
        assert answers.keys() & short(before)
        assert answers.keys() & short(after)


def test_a_host_that_was_cut_off_has_no_stale_name(cluster, front):
    options = ("--network", "front", "--constraint", "node.hostname!=h3", "--stop-grace-period", "1s")
    with service(cluster, "web", "--replicas", "1", *options):
        old = cluster.wait_running("web", 1, 30)
        cut_off = next(t for t in front if cluster.node_names()[t["NodeID"]] == "h3")
        known_everywhere(cluster, [cut_off], "tasks.web", addresses(old))
        for peer in ("h1", "h2"):
            cluster.lab.cut("h3", peer)
        try:
            cluster.swarm("h1", "service", "update", "--force", "-d", "web")
            cluster.wait_until(
                lambda: cluster.running("web") and short(cluster.running("web")).isdisjoint(short(old)),
                "web runs anew",
                30,
            )
            new = cluster.wait_running("web", 1, 30)
        finally:
            cluster.lab.heal()
        cluster.wait_until(lambda: cluster.node_states()["h3"] == "ready", "h3 is back", 20)
        known_everywhere(cluster, [cut_off], "tasks.web", addresses(new))
        assert ask(cluster, cut_off, f"web.1.{old[0]['ID']}")[0] == "NXDOMAIN"


def test_names_and_addresses_go_on_while_swarmd_is_dead(cluster, front):
    options = ("--network", "front", "--constraint", "node.hostname==h1", "--stop-grace-period", "1s")
    with service(cluster, "web", "--replicas", "1", *options):
        one = cluster.wait_running("web", 1, 30)
        left = next(t for t in front if cluster.node_names()[t["NodeID"]] == "h2")
        known_everywhere(cluster, [left], "tasks.web", addresses(one))
        cluster.kill_daemon("h2")
        assert ask(cluster, left, "tasks.web") == ("NOERROR", addresses(one))
        virtual = virtual_address(cluster, "web")
        inside = ("nsenter", f"--net=/run/swarm/netns/{left['ID']}")
        assert cluster.output("h2", *inside, "curl", "-s", f"http://{virtual}/").strip() in short(one)
        cluster.wait_daemon("h2")
        cluster.swarm("h1", "service", "scale", "-d", "web=2")
        both = cluster.wait_running("web", 2, 30)
        known_everywhere(cluster, [left], "tasks.web", addresses(both))
