"""Managers that lock their keys: what they say, what opens them, what a thief of the disk gets."""

from __future__ import annotations

import contextlib

import pytest
from docker import DockerClient
from docker.errors import APIError

from swarm.base.clock import SystemClock
from tests.integration.cluster import Cluster

pytestmark = pytest.mark.root

LOCKED = "Swarm is encrypted and needs to be unlocked before it can be used."
SLOW_MACHINE_S = 3.0
"""What a loaded machine may add to a figure of the product."""
CANARY = "CanaryOfAutolock4711"
"""Part of every name, value and label that a user gives here."""


@pytest.fixture(scope="module")
def three(lab, web_archive) -> Cluster:
    """Three managers under autolock; on h1 one service and one full of canaries, one runs nowhere."""
    cluster = Cluster(lab(hosts=3))
    cluster.load(web_archive)
    first, *others = cluster.hosts
    text = cluster.swarm(first, "init", "--autolock", "--advertise-addr", cluster.lab.address(first))
    assert "command and provide the following key:\n\n    SWMKEY-1-" in text
    token = cluster.swarm(first, "join-token", "-q", "manager").strip()
    for host in others:
        said = cluster.swarm(host, "join", "--token", token, f"{cluster.lab.address(first)}:2377")
        assert "swarm unlock-key" in said
    cluster.create("web", "--constraint", "node.hostname==h1")
    cluster.swarm(first, "node", "update", "--label-add", f"{CANARY}=1", first)
    cluster.create("hidden", "--replicas", "0", "--label", f"note={CANARY}")
    cluster.create(
        CANARY, "--constraint", f"node.labels.{CANARY}==1", "--env", f"WORD={CANARY}",
        "--container-label", f"a={CANARY}", "-p", "8093:80",
    )  # fmt: skip
    cluster.wait_running("web", 1)
    cluster.wait_running(CANARY, 1)
    return cluster


def unlock_key(cluster: Cluster, host: str = "h1") -> str:
    return cluster.swarm(host, "unlock-key", "-q").strip()


def state(cluster: Cluster, host: str) -> str:
    found: str = cluster.get("/info", host)["Swarm"]["LocalNodeState"]
    return found


def unlock(cluster: Cluster, host: str, key: str) -> str:
    """Empty, or why it was refused."""
    done = cluster.run(host, "sh", "-c", f"echo '{key}' | swarm unlock")
    return done.stderr.strip() if done.returncode else ""


def kill_until_locked(cluster: Cluster, host: str) -> None:
    cluster.kill_daemon(host)
    cluster.wait_until(lambda: state(cluster, host) == "locked", f"{host} is locked", 3 + SLOW_MACHINE_S)


def restart(cluster: Cluster, host: str) -> None:
    """Until it is locked, and the other managers have a leader again."""
    kill_until_locked(cluster, host)
    other = next(h for h in cluster.hosts if h != host)
    cluster.wait_until(lambda: cluster.get("/nodes", other), "the others serve", 10)


def test_a_restarted_manager_is_locked_everywhere_and_its_containers_run_on(three):
    key = unlock_key(three)
    web = three.running("web")[0]["Status"]["ContainerStatus"]["PID"]
    restart(three, "h1")
    three.output("h1", "kill", "-0", str(web))
    info = three.get("/info", "h1")["Swarm"]
    assert (info["ControlAvailable"], info["LocalNodeState"]) == (False, "locked")
    for command in (("node", "ls"), ("service", "ls"), ("unlock-key",), ("leave",), ("join-token", "worker")):
        assert LOCKED in three.refused("h1", *command)
    assert "already part of a swarm" in three.refused("h1", "init")
    assert LOCKED in three.run("h1", "docker", "node", "ls").stderr
    assert three.output("h1", "docker", "info", "--format", "{{.Swarm.LocalNodeState}}").strip() == "locked"
    assert three.run("h1", "pgrep", "etcd").stdout == ""
    assert unlock(three, "h1", "SWMKEY-1-" + "A" * 43).endswith(
        "swarm could not be unlocked: invalid key provided"
    )
    assert unlock(three, "h1", "nonsense").endswith("invalid key string")
    assert state(three, "h1") == "locked"
    clock = SystemClock()
    began = clock.monotonic()
    assert unlock(three, "h1", key) == ""
    three.wait_until(lambda: three.get("/nodes"), "h1 serves")
    assert clock.monotonic() - began < 5 + SLOW_MACHINE_S
    assert unlock(three, "h1", key) == "Error: swarm is not locked"


def test_the_same_words_for_docker_s_clients(three):
    key = unlock_key(three)
    with contextlib.closing(DockerClient(base_url=f"unix://{three.lab.socket_path('h2')}")) as client:
        assert client.swarm.get_unlock_key() == {"UnlockKey": key}
        with pytest.raises(APIError, match="swarm is not locked") as refusal:
            client.swarm.unlock(key)
        assert refusal.value.status_code == 409
        restart(three, "h2")
        with pytest.raises(APIError, match="needs to be unlocked") as refusal:
            client.nodes.list()
        assert refusal.value.status_code == 503
        with pytest.raises(APIError, match="invalid key provided") as refusal:
            client.swarm.unlock("SWMKEY-1-" + "A" * 43)
        assert refusal.value.status_code == 401
        assert client.swarm.unlock(key)
        three.wait_until(lambda: client.nodes.list(), "h2 serves", 5 + SLOW_MACHINE_S)


def test_a_manager_that_was_down_during_a_rotation_takes_the_old_key_once(three):
    old = unlock_key(three)
    restart(three, "h3")
    new = three.swarm("h1", "unlock-key", "--rotate", "-q").strip()
    assert new != old
    assert unlock(three, "h3", new).endswith("invalid key provided")
    assert unlock(three, "h3", old) == ""
    three.wait_until(lambda: unlock_key(three, "h3") == new, "h3 has caught up", 10)
    restart(three, "h3")
    assert unlock(three, "h3", old).endswith("invalid key provided")
    assert unlock(three, "h3", new) == ""
    three.wait_until(lambda: three.get("/nodes", "h3"), "h3 serves", 10)


def test_nothing_can_be_read_with_the_disk_alone(three):
    key = unlock_key(three)
    tokens = three.get("/swarm")["JoinTokens"]
    wanted = [CANARY, key.removeprefix("SWMKEY-1-"), "PRIVATE KEY"]
    wanted += [token.rsplit("-", 1)[1] for token in tokens.values()]
    restart(three, "h1")  # the one that runs the container, too
    # What etcd and the runtime read themselves is on a tmpfs: a disk does not hold it.
    assert three.output("h1", "stat", "-f", "-c", "%T", "/run/swarm").strip() == "tmpfs"
    for text in wanted:
        found = three.run("h1", "grep", "-rlaiF", "--", text, "/var/lib/swarm")
        assert [line for line in found.stdout.splitlines() if "/images/" not in line] == [], text
    assert unlock(three, "h1", key) == ""
    three.wait_until(lambda: three.get("/nodes", "h1"), "h1 serves", 10)


def test_turning_it_off_and_on_reaches_every_manager(three):
    three.swarm("h1", "update", "--autolock=false")
    assert "no unlock key is set" in three.refused("h1", "unlock-key")
    locks_are(three, b"open")
    said = three.swarm("h1", "update", "--autolock=true")
    assert f"    {unlock_key(three)}" in said
    locks_are(three, b"closed")


def test_a_demoted_manager_is_not_locked(three):
    three.swarm("h1", "node", "demote", "h3")
    locks_are(three, b"open", ["h3"], 30)
    three.wait_until(lambda: not three.get("/info", "h3")["Swarm"]["ControlAvailable"], "h3 is a worker")
    three.kill_daemon("h3")
    three.wait_until(lambda: state(three, "h3") == "active", "h3 is a worker again", 10)


def test_a_locked_manager_can_leave_by_force(three):
    kill_until_locked(three, "h1")
    three.swarm("h1", "leave", "--force")
    assert three.get("/info", "h1")["Swarm"]["LocalNodeState"] == "inactive"
    three.wait_clean("h1", of_member=True)


def locks_are(cluster: Cluster, word: bytes, hosts: list[str] | None = None, timeout_s: float = 10) -> None:
    def check() -> bool:
        wanted = f"swarm lock 1 {word.decode()}"
        heads = [
            cluster.output(h, "busybox", "head", "-n", "1", "/var/lib/swarm/node/lock")
            for h in hosts or cluster.hosts
        ]
        return all(head.startswith(wanted) for head in heads)

    cluster.wait_until(check, f"the locks are {word.decode()}", timeout_s)
