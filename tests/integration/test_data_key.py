"""Another data key on real managers: they die at every moment of it, and nothing is lost."""

from __future__ import annotations

import contextlib

import pytest

from swarm.base.errors import SwarmError
from tests.integration.cluster import Cluster

pytestmark = pytest.mark.root

DATA_KEY = "/var/lib/swarm/manager/data.key"
SERVICES = 120


@pytest.fixture(scope="module")
def three(lab) -> Cluster:
    """Three managers, and more objects than one batch has."""
    cluster = Cluster(lab(hosts=3))
    first, *others = cluster.hosts
    cluster.swarm(first, "init", "--advertise-addr", cluster.lab.address(first))
    token = cluster.swarm(first, "join-token", "-q", "manager").strip()
    for host in others:
        cluster.swarm(host, "join", "--token", token, f"{cluster.lab.address(first)}:2377")
    with cluster.client() as client:
        for number in range(SERVICES):
            template = {"ContainerSpec": {"Image": "web"}}
            mode = {"Replicated": {"Replicas": 0}}
            client.post("/services/create", {"Name": f"s{number}", "TaskTemplate": template, "Mode": mode})
    return cluster


def kept(cluster: Cluster, host: str) -> tuple[int, str]:
    """How long the file of the data key is, and a digest of it."""
    size = int(cluster.output(host, "stat", "-c", "%s", DATA_KEY))
    return size, cluster.output(host, "sha256sum", DATA_KEY).split()[0]


def names(cluster: Cluster, host: str) -> set[str]:
    return {service["Spec"]["Name"] for service in cluster.get("/services", host)}


def wait_moved(cluster: Cluster, former: str, size: int) -> str:
    """Until the swarm has another key, and every manager that key alone; its name."""

    def moved(host: str) -> bool:
        found = cluster.get("/system/datakey", host)
        return bool(found["Key"] != former and found["State"] == "none" and kept(cluster, host)[0] == size)

    for host in cluster.hosts:
        cluster.wait_until(lambda host=host: moved(host), f"{host} has moved", 60)
    keys = {cluster.get("/system/datakey", host)["Key"] for host in cluster.hosts}
    assert len(keys) == 1
    return keys.pop()


def test_the_command_replaces_the_key_on_every_manager(three):
    before = {host: kept(three, host) for host in three.hosts}
    former = three.get("/system/datakey")["Key"]
    versions = {s["ID"]: s["Spec"] for s in three.get("/services")}
    said = three.swarm("h2", "system", "rotate-data-key", timeout=60)
    assert said.splitlines()[-1] == "everything is sealed with the new key"
    size = before["h1"][0]
    wait_moved(three, former, size)
    for host in three.hosts:
        assert kept(three, host)[1] != before[host][1]
    assert {s["ID"]: s["Spec"] for s in three.get("/services", "h3")} == versions
    assert "already exists" in three.refused(
        "h1", "service", "create", "-d", "--no-resolve-image", "--name", "s7", "web"
    )
    three.swarm("h3", "service", "rm", "s0")
    three.swarm(
        "h1", "service", "create", "-d", "--no-resolve-image", "--name", "s0", "--replicas", "0", "web"
    )


def test_managers_that_are_killed_again_and_again_end_it(three):
    former = three.get("/system/datakey")["Key"]
    size = kept(three, "h1")[0]
    wanted = names(three, "h1")
    with contextlib.suppress(AssertionError):  # its manager may die before it answers
        three.swarm("h1", "system", "rotate-data-key", "-d")
    for host in ("h1", "h2", "h3", "h1"):
        three.kill_daemon(host)
        three.wait_daemon(host)
        three.wait_until(lambda host=host: three.get("/services", host), "it serves again", 30)

    def asked() -> bool:
        found = three.get("/system/datakey", "h2")
        return bool(found["Key"] != former or found["State"] != "none")

    if not asked():
        three.swarm("h2", "system", "rotate-data-key", "-d")
    wait_moved(three, former, size)
    for host in three.hosts:
        assert names(three, host) == wanted


def test_a_manager_that_is_down_is_named_and_may_be_let_go(three):
    former = three.get("/system/datakey")["Key"]
    size = kept(three, "h1")[0]
    three.output("h3", "kill", "-STOP", str(three.daemon_pid("h3")))
    try:
        three.wait_until(lambda: three.node_states()["h3"] != "ready", "h3 is down", 15)
        three.swarm("h1", "system", "rotate-data-key", "-d")

        def waits() -> bool:
            found = three.get("/system/datakey", "h2")
            return found["State"] == "distributing" and [n["Hostname"] for n in found["WaitsFor"]] == ["h3"]

        three.wait_until(waits, "h3 is waited for", 10)
        assert three.get("/system/datakey")["Key"] == former
    finally:
        three.output("h3", "kill", "-CONT", str(three.daemon_pid("h3")))
    wait_moved(three, former, size)


def test_a_backup_of_after_it_is_restored(three):
    three.output("h1", "sh", "-c", "echo word > /run/passphrase")
    three.swarm("h1", "system", "backup", "--passphrase-file", "/run/passphrase", "/run/saved")
    wanted = names(three, "h1")
    for host in three.hosts:
        with contextlib.suppress(SwarmError, AssertionError):
            three.swarm(host, "leave", "--force")
    address = three.lab.address("h1")
    three.swarm(
        "h1", "system", "restore", "--advertise-addr", address,
        "--passphrase-file", "/run/passphrase", "/run/saved", timeout=60,
    )  # fmt: skip
    assert names(three, "h1") == wanted
    assert three.get("/system/datakey")["State"] == "none"
