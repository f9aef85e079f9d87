"""Updates on real hosts: nothing is lost on the way, what fails is told, and a new leader goes on."""

from __future__ import annotations

import pytest

from tests.integration.cluster import Probe, service, short

pytestmark = pytest.mark.root

PORT = 8095
REPLICAS = 10
QUICK = ("--stop-grace-period", "1s", "--update-monitor", "1s", "--rollback-monitor", "1s")
HEALTH = (
    *("--health-cmd", "wget -q -O /dev/null http://127.0.0.1/"),
    *("--health-interval", "500ms", "--health-timeout", "5s", "--health-retries", "20"),
)
SURGE = ("--update-order", "start-first", "--update-parallelism", "2")


def status(cluster, name):
    return cluster.get(f"/services/{name}").get("UpdateStatus") or {}


def wait_status(cluster, name, state, timeout_s=90.0):
    def reached():
        found = status(cluster, name)
        assert found.get("State") in (None, "updating", "rollback_started", state), found
        return found if found.get("State") == state else None

    return cluster.wait_until(reached, f"the update of {name} is {state}", timeout_s)


@pytest.fixture
def web(cluster):
    """Ten healthy replicas behind a published port."""
    options = ("--replicas", str(REPLICAS), "-p", f"{PORT}:80", *QUICK, *HEALTH, *SURGE)
    with service(cluster, "web", *options):
        yield cluster.wait_running("web", REPLICAS, 60)
    cluster.wait_until(lambda: not cluster.tasks("web"), "web has no task", 30)


def test_an_update_loses_no_request(cluster, web):
    with Probe(cluster.lab.address("h1"), PORT) as near, Probe(cluster.lab.address("h2"), PORT) as other:
        cluster.swarm("h1", "service", "update", "-d", "--env-add", "RELEASE=2", "web")
        wait_status(cluster, "web", "completed")
        updated = cluster.wait_running("web", REPLICAS)
    for probe in (near, other):
        assert not probe.failures
        assert not probe.refused
        assert len(probe.answers) > 50
    assert short(updated).isdisjoint(short(web))
    assert set(near.answers) | set(other.answers) >= short(web) | short(updated)


def test_a_drain_loses_no_request(cluster, web):
    try:
        with (
            Probe(cluster.lab.address("h1"), PORT) as near,
            Probe(cluster.lab.address("h3"), PORT) as drained,
        ):
            cluster.swarm("h1", "node", "update", "--availability", "drain", "h3")
            cluster.wait_until(
                lambda: "h3" not in cluster.hosts_of(cluster.running("web")), "h3 is empty", 60
            )
            cluster.wait_running("web", REPLICAS, 30)
        for probe in (near, drained):
            assert not probe.failures
            assert not probe.refused
    finally:
        cluster.swarm("h1", "node", "update", "--availability", "active", "h3")


def test_a_failing_update_says_why_and_can_be_resumed(cluster):
    with service(cluster, "frail", "--replicas", "2", *QUICK):
        before = short(cluster.wait_running("frail", 2))
        cluster.swarm(
            "h1", "service", "update", "-d", "--args", "sh -c 'echo no database >&2; exit 3'", "frail"
        )
        message = wait_status(cluster, "frail", "paused")["Message"]
        assert message.startswith("update paused due to failure or early termination of task ")
        assert "frail." in message
        assert "non-zero exit (3)" in message
        assert "no database" in message
        assert len(short(cluster.running("frail")) & before) == 1, "the other one was not touched"
        cluster.docker("h1", "service", "rollback", "-d", "frail")
        wait_status(cluster, "frail", "rollback_completed")
        cluster.wait_running("frail", 2)


def test_a_failing_update_is_rolled_back(cluster):
    options = (
        "--replicas",
        "2",
        "--update-failure-action",
        "rollback",
        "--update-order",
        "start-first",
        *QUICK,
    )
    with service(cluster, "back", *options):
        before = cluster.wait_running("back", 2)
        cluster.docker("h1", "service", "update", "-d", "--args", "sh -c 'exit 4'", "back")
        message = wait_status(cluster, "back", "rollback_completed")["Message"]
        assert "non-zero exit (4)" in message
        assert short(cluster.wait_running("back", 2)) == short(before)


def test_an_update_goes_on_when_the_leader_is_killed(cluster):
    with service(cluster, "steady", "--replicas", "4", "--update-delay", "500ms", *QUICK):
        before = cluster.wait_running("steady", 4)
        cluster.swarm("h1", "service", "update", "-d", "--force", "steady")
        cluster.wait_until(
            lambda: short(cluster.running("steady")) - short(before), "the first task is replaced"
        )
        cluster.kill_daemon("h1")
        cluster.wait_daemon("h1")
        wait_status(cluster, "steady", "completed")
        assert short(cluster.wait_running("steady", 4)).isdisjoint(short(before))


def test_a_lost_label_moves_the_tasks_without_a_gap(cluster):
    options = (
        "--constraint",
        "node.labels.disk==fast",
        "--update-order",
        "start-first",
        "-p",
        "8096:80",
        *QUICK,
    )
    cluster.swarm("h1", "node", "update", "--label-add", "disk=fast", "h2")
    with service(cluster, "picky", *options, *HEALTH):
        cluster.wait_running("picky", 1)
        cluster.swarm("h1", "node", "update", "--label-add", "disk=fast", "h3")
        with Probe(cluster.lab.address("h1"), 8096) as probe:
            cluster.swarm("h1", "node", "update", "--label-rm", "disk", "h2")
            cluster.wait_until(lambda: cluster.hosts_of(cluster.running("picky")) == ["h3"], "it is on h3")
        assert not probe.failures
        assert not probe.refused
    cluster.swarm("h1", "node", "update", "--label-rm", "disk", "h3")
