"""What breaks, breaks little: power cuts, kill -9 of swarmd and of etcd, partitions; on three real hosts."""

from __future__ import annotations

import random

import pytest

from swarm.base.clock import SystemClock
from tests.integration.cluster import Probe

pytestmark = pytest.mark.root

SEED = 20250101
# A task that ends with the code 7 on SIGUSR1, and with 0 on SIGTERM.
ENDS_WITH_7 = 'trap "exit 7" USR1; trap "exit 0" TERM; while true; do sleep 0.1 & wait $!; done'
SLOW_MACHINE_S = 1.5
"""What a loaded machine may add to a figure of the product."""


@pytest.fixture(scope="module")
def web(cluster):
    """Six replicas, two on each host."""
    cluster.create("web", "--replicas", "6", "-p", "8080:80")
    cluster.wait_running("web", 6)
    return "web"


def pids(cluster, host):
    """The first processes of the host's living containers, by task."""
    script = """
        cd /run/swarm/containers
        for file in */pid; do
            [ -f $file ] && [ -d /proc/$(cat $file) ] && echo ${file%/pid} $(cat $file)
        done
        true
    """
    return dict(line.split() for line in cluster.output(host, "sh", "-c", script).splitlines())


def etcds(cluster):
    return cluster.run("h1", "pgrep", "-x", "etcd").stdout.split()


def on(name):
    return ("--constraint", f"node.hostname=={name}")


# --- swarmd --------------------------------------------------------------------------------------------


def test_killing_a_workers_swarmd_leaves_its_containers_alone(cluster, web):
    before = pids(cluster, "h2")
    assert len(before) == 2
    with Probe(cluster.lab.address("h2"), 8080) as probe:
        cluster.kill_daemon("h2")
        cluster.wait_daemon("h2")
        cluster.wait_until(lambda: cluster.get("/info", "h2")["Containers"] == 2, "it has adopted them")
        cluster.wait_until(lambda: cluster.node_states()["h2"] == "ready", "h2 is ready")
    assert not probe.failures
    assert not probe.refused
    assert pids(cluster, "h2") == before
    assert {t["ID"] for t in cluster.wait_running("web", 6)} >= set(before)


def test_an_exit_that_nobody_watched_is_reported_with_its_code(cluster):
    cluster.create("seven", *on("h2"), "--restart-condition", "none", command=("sh", "-c", ENDS_WITH_7))
    (task,) = cluster.wait_running("seven", 1)
    pid = pids(cluster, "h2")[task["ID"]]
    # Both in one go: swarmd is dead before the container ends.
    cluster.output("h2", "sh", "-c", f"kill -9 {cluster.daemon_pid('h2')}; kill -USR1 {pid}")

    def ended():
        states = [t["Status"] for t in cluster.tasks("seven")]
        return states if "running" not in {status["State"] for status in states} else None

    (status,) = cluster.wait_until(ended, "its end is known")
    assert status["State"] == "failed"
    assert status["ContainerStatus"]["ExitCode"] == 7
    assert status["Err"] == "task: non-zero exit (7)"
    cluster.swarm("h1", "service", "rm", "seven")


def test_killing_the_managers_swarmd_loses_nothing_and_has_one_etcd(cluster, web):
    tasks, before, old = cluster.wait_running("web", 6), pids(cluster, "h1"), etcds(cluster)
    assert len(old) == 1
    with Probe(cluster.lab.address("h1"), 8080) as probe:
        cluster.kill_daemon("h1")
        cluster.wait_daemon("h1")
        cluster.wait_until(lambda: set(cluster.node_states().values()) == {"ready"}, "all are ready")
    assert not probe.failures
    assert not probe.refused
    assert pids(cluster, "h1") == before
    assert {t["ID"] for t in cluster.wait_running("web", 6)} == {t["ID"] for t in tasks}
    new = etcds(cluster)
    assert len(new) == 1
    assert new != old


def test_killing_etcd_loses_nothing(cluster, web):
    tasks, daemon, (old,) = cluster.wait_running("web", 6), cluster.daemon_pid("h1"), etcds(cluster)
    cluster.output("h1", "kill", "-9", old)
    cluster.wait_until(lambda: etcds(cluster) not in ([], [old]), "another etcd runs")
    cluster.wait_until(lambda: is_written(cluster, "after"), "the store takes writes", 10.0)
    cluster.wait_running("after", 1)
    assert {t["ID"] for t in cluster.wait_running("web", 6)} == {t["ID"] for t in tasks}
    assert cluster.daemon_pid("h1") == daemon
    assert len(etcds(cluster)) == 1
    cluster.swarm("h1", "service", "rm", "after")


def is_written(cluster, name):
    """Whether a service could be created. A refusal must be one line, and nothing is stored then."""
    options = ("--stop-grace-period", "1s")
    done = cluster.run(
        "h1", "swarm", "service", "create", "-d", "--name", name, *options, "web", "sleep", "1000"
    )
    if done.returncode != 0:
        assert "The swarm does not have a leader" in done.stderr, done
        assert done.stderr.count("\n") == 1
    return done.returncode == 0


def test_what_was_acknowledged_outlives_kills_at_any_moment(cluster, web):
    """Six times: a change is asked for, and swarmd is killed at a random moment around it."""
    chance = random.Random(SEED)
    wanted = {}
    for turn in range(6):
        name = f"kept{turn % 3}"
        replicas = 1 + turn % 4
        command = (
            ["service", "scale", "-d", f"{name}={replicas}"]
            if name in wanted
            else ["service", "create", "-d", "--name", name, "--replicas", str(replicas), "-q", "web"]
        )
        daemon = cluster.daemon_pid("h1")
        delay = chance.uniform(0.0, 0.4)
        killer = (
            f"(sleep {delay:.3f}; kill -9 {daemon}) & swarm {' '.join(command)}; code=$?; wait; exit $code"
        )
        done = cluster.run("h1", "sh", "-c", killer)
        cluster.wait_daemon("h1")
        found = cluster.wait_until(lambda: replicas_by_name(cluster), "the manager answers")
        if done.returncode == 0:
            assert found.get(name) == replicas, f"turn {turn}, killed after {delay:.3f} s: {done}"
        wanted = {n: count for n, count in found.items() if n.startswith("kept")}
        assert len(etcds(cluster)) == 1
    for name, replicas in wanted.items():
        cluster.wait_running(name, replicas)
    cluster.wait_running("web", 6)
    cluster.swarm("h1", "service", "rm", *wanted)
    cluster.wait_until(
        lambda: (
            {t["ServiceID"] for t in cluster.get("/tasks")} == {s["ID"] for s in cluster.get("/services")}
        ),
        "their tasks are gone",
    )


def replicas_by_name(cluster):
    return {s["Spec"]["Name"]: s["Spec"]["Mode"]["Replicated"]["Replicas"] for s in cluster.get("/services")}


# --- hosts ---------------------------------------------------------------------------------------------


def test_a_power_cut_moves_the_tasks_and_the_port_goes_on(cluster, web):
    tasks = cluster.wait_running("web", 6)
    lost = [t["ID"] for t in tasks if cluster.node_names()[t["NodeID"]] == "h3"]
    assert lost
    clock = SystemClock()
    first, second = (Probe(cluster.lab.address(name), 8080) for name in ("h1", "h2"))
    with first, second:
        cluster.lab.kill("h3")
        began = clock.monotonic()
        cluster.wait_until(lambda: cluster.node_states()["h3"] == "down", "h3 is down", 5 + SLOW_MACHINE_S)

        def moved():
            alive = [t for t in cluster.running("web") if t["ID"] not in lost]
            return alive if len(alive) == 6 else None

        alive = cluster.wait_until(moved, "six run elsewhere", 10 + SLOW_MACHINE_S)
        took_s = clock.monotonic() - began
        assert set(cluster.hosts_of(alive)) == {"h1", "h2"}
    assert took_s < 10 + SLOW_MACHINE_S
    for probe in (first, second):
        assert not probe.failures
        assert probe.refused <= len(lost), "once for each new task at most"
        assert len(probe.answers) > 20
    assert ("h3", "Down") in nodes(cluster)


def nodes(cluster):
    listed = cluster.swarm("h1", "node", "ls", "--format", "{{.Hostname}} {{.Status}}")
    return [tuple(line.split()) for line in listed.splitlines()]


def test_a_host_that_returns_is_ready_and_its_old_tasks_are_gone(cluster, web):
    cluster.lab.start("h3")
    cluster.wait_until(lambda: cluster.node_states()["h3"] == "ready", "h3 is ready", 10.0)
    cluster.wait_running("web", 6)
    assert not pids(cluster, "h3")
    assert cluster.run("h3", "pgrep", "conmon").stdout == ""
    cluster.create("again", *on("h3"), "-p", "8081:80")
    (task,) = cluster.wait_running("again", 1)
    for host in ("h3", "h1"):
        cluster.wait_until(
            lambda at=host: cluster.url_get(at, 8081) == task["ID"][:12], f"{host} leads to it"
        )
    assert cluster.url_get("h3", 8080)
    cluster.swarm("h1", "service", "rm", "again")


def test_after_a_partition_the_old_copies_stop(cluster):
    cluster.create("split", *("--replicas", "3", "--replicas-max-per-node", "2"), "-p", "8082:80")
    before = cluster.wait_running("split", 3)
    (old,) = [t["ID"] for t in before if cluster.node_names()[t["NodeID"]] == "h3"]
    cluster.lab.cut("h1", "h3")
    cluster.lab.cut("h2", "h3")
    cluster.wait_until(lambda: cluster.node_states()["h3"] == "down", "h3 is down", 5 + SLOW_MACHINE_S)
    cluster.wait_until(
        lambda: len([t for t in cluster.running("split") if t["ID"] != old]) == 3, "three run elsewhere", 12.0
    )
    assert old in pids(cluster, "h3"), "a host that is cut off keeps what it runs"
    names = {t["ID"][:12] for t in cluster.running("split") if t["ID"] != old}
    cluster.wait_until(lambda: {cluster.url_get("h1", 8082) for _ in range(9)} == names, "the three answer")
    cluster.lab.heal()
    cluster.wait_until(lambda: cluster.node_states()["h3"] == "ready", "h3 is ready", 10.0)
    cluster.wait_until(lambda: old not in pids(cluster, "h3"), "the old copy has stopped", 15.0)
    cluster.wait_running("split", 3)
    addresses = [
        address
        for task in cluster.running("split")
        for a in task["NetworksAttachments"]
        for address in a["Addresses"]
    ]
    assert len(set(addresses)) == len(addresses) == 3
    cluster.swarm("h1", "service", "rm", "split")


def test_a_manager_that_loses_power_comes_back_with_everything(cluster, web):
    names = cluster.node_names()
    there = {t["ID"] for t in cluster.wait_running("web", 6) if names[t["NodeID"]] != "h1"}
    before = {
        task: pid for name in ("h2", "h3") for task, pid in pids(cluster, name).items() if task in there
    }
    assert len(before) == len(there) > 0
    cluster.lab.kill("h1")
    # Nobody tells h2 which backends are gone, but those that are left answer.
    cluster.wait_until(lambda: cluster.url_get("h2", 8080, timeout_s=1.0), "h2 answers alone", 15.0)
    cluster.lab.start("h1")
    cluster.wait_until(lambda: set(cluster.node_states().values()) == {"ready"}, "all are ready", 20.0)
    cluster.wait_running("web", 6)
    assert before.items() <= (pids(cluster, "h2") | pids(cluster, "h3")).items()
    cluster.swarm("h1", "service", "rm", "web")
    cluster.wait_clean()
