"""One manager that dies anywhere between making an unlock key and locking with it: nobody is shut out.

Each test arms one failpoint for the next life of swarmd, asks for a new key, and must get back in with what
the command printed, with the key of before, or without any.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.chaos import chaos_lab
from tests.integration.cluster import Cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

HOST = "h1"
KEY = re.compile(r"SWMKEY-1-\S+")
LOCK = "/var/lib/swarm/node/lock"
ONE_KEY_BYTES = 113
ON = ("cluster.change.after:1", "lock.key.sent:1", "lock.change.after:1")
ROTATED = (*ON, "lock.change.before:2")
"""The first change of the lock adds the new key, the second drops the old one."""


@pytest.fixture(scope="module")
def one():
    with chaos_lab.chaos_lab(f"u{os.getpid()}", hosts=1) as lab:
        cluster = Cluster(lab)
        cluster.swarm(HOST, "init", "--advertise-addr", lab.address(HOST))
        yield cluster


def state(cluster: Cluster) -> str:
    found: str = cluster.get("/info")["Swarm"]["LocalNodeState"]
    return found


def open_with(cluster: Cluster, keys: list[str]) -> None:
    """Until the manager serves, by one of the keys that somebody has."""

    def serves() -> bool:
        if state(cluster) == "locked":
            for key in keys:
                cluster.lab.exec(HOST, ("swarm", "unlock"), feed=f"{key}\n")
        return state(cluster) == "active" and bool(cluster.get("/nodes"))

    cluster.wait_until(serves, f"one of {len(keys)} keys opens it", 30.0)


def restart(cluster: Cluster, failpoint: str = "") -> None:
    if failpoint:
        done = cluster.lab.exec(HOST, ["tee", chaos_lab.FAILPOINTS], feed=f"{failpoint}:kill9")
        assert done.returncode == 0, done.stderr
    before = str(cluster.daemon_pid(HOST))
    chaos_lab.restart_daemon(cluster, HOST)
    wait_next_life(cluster, before)


def die_during(cluster: Cluster, *command: str) -> str:
    """What the command printed; swarmd has died of its failpoint when it returns."""
    before = str(cluster.daemon_pid(HOST))
    said = cluster.run(HOST, "swarm", *command).stdout
    wait_next_life(cluster, before)
    return said


def wait_next_life(cluster: Cluster, before: str) -> None:
    def pid() -> str:
        return cluster.run(HOST, "pgrep", "-P", "1", "-f", "swarm.cli.swarmd").stdout.strip()

    cluster.wait_until(lambda: pid() not in ("", before), "swarmd has ended and is back")
    cluster.wait_daemon(HOST)


def closed_by_one_key(cluster: Cluster) -> bool:
    head = cluster.output(HOST, "busybox", "head", "-n", "1", LOCK)
    size = int(cluster.output(HOST, "stat", "-c", "%s", LOCK))
    return (head, size) == ("swarm lock 1 closed\n", ONE_KEY_BYTES)


def settled_key(cluster: Cluster) -> str:
    """The key as `unlock-key` tells it; from then on it alone opens the lock."""
    key = cluster.swarm(HOST, "unlock-key", "-q").strip()
    cluster.wait_until(lambda: closed_by_one_key(cluster), "the lock takes one key", 10.0)
    return key


@pytest.mark.parametrize("point", ON)
def test_autolock_is_turned_on(one, point):
    restart(one, point)
    open_with(one, [])
    known = KEY.findall(die_during(one, "update", "--autolock=true"))
    open_with(one, known)
    assert known in ([], [settled_key(one)])
    one.swarm(HOST, "update", "--autolock=false")
    head = ("busybox", "head", "-n", "1", LOCK)
    one.wait_until(lambda: one.output(HOST, *head).startswith("swarm lock 1 open"), "the lock is open")


@pytest.mark.parametrize("point", ROTATED)
def test_the_key_is_rotated(one, point):
    if not one.get("/swarm")["Spec"]["EncryptionConfig"]["AutoLockManagers"]:
        one.swarm(HOST, "update", "--autolock=true")
    old = settled_key(one)
    restart(one, point)
    open_with(one, [old])
    printed = KEY.findall(die_during(one, "unlock-key", "--rotate"))
    assert state(one) == "locked"
    # A key that was printed opens; with none, the old one does.
    open_with(one, printed or [old])
    assert printed in ([], [settled_key(one)])


def test_a_key_that_nobody_reads_is_told_of(one):
    swarm = one.get("/swarm")
    version = swarm["Version"]["Index"]
    with one.client() as client:
        client.post("/swarm/update", swarm["Spec"], version=version, rotateManagerUnlockKey=True)
    warning = "WARNING: nobody has read the swarm's new unlock key yet"
    assert any(text.startswith(warning) for text in one.get("/info")["Warnings"])
    settled_key(one)
    assert not one.get("/info")["Warnings"]


def test_who_unlocks_with_the_next_key_has_it(one):
    """Its answer was sent, and swarmd died before it could note that."""
    old = settled_key(one)
    restart(one, "lock.key.sent:1")
    open_with(one, [old])
    (new,) = KEY.findall(die_during(one, "unlock-key", "--rotate"))
    open_with(one, [new])
    one.wait_until(lambda: closed_by_one_key(one), "it is noted", 10.0)
    restart(one)
    done = one.lab.exec(HOST, ("swarm", "unlock"), feed=f"{old}\n")
    assert "invalid key provided" in done.stderr
    open_with(one, [new])


def test_a_founder_that_dies_before_its_key_was_shown_is_not_lost(one):
    open_with(one, [])
    one.swarm(HOST, "leave", "--force")
    restart(one, "lock.key.sent:1")
    said = die_during(one, "init", "--autolock", "--advertise-addr", one.lab.address(HOST))
    open_with(one, KEY.findall(said))
    assert settled_key(one)
