"""The managers' store in trouble, on three real hosts: a damaged log, a used-up quota, a full disk."""

from __future__ import annotations

import json
import secrets
import sys

import pytest

from swarm.base.errors import SwarmError
from swarm.lab.lab import SWARMD
from tests.integration.cluster import Cluster

pytestmark = pytest.mark.root

QUOTA = "16M"
SMALL_DISK = "160m"
"""Two of etcd's log files of 64 MiB fit, a third does not."""
DAMAGE = r"""
daemon=$(pgrep -P 1 -f swarm.cli.swarmd)
kill -STOP $daemon
kill -9 $(pgrep -x etcd)
printf '\377\377\377\377' | dd of=$(ls /var/lib/swarm/etcd/data/member/wal/*.wal | head -1) \
    bs=1 seek=700 conv=notrunc 2>/dev/null
kill -CONT $daemon
"""
# All but the two pages that say what the others are.
DAMAGE_DATABASE = r"""
daemon=$(pgrep -P 1 -f swarm.cli.swarmd)
kill -STOP $daemon
kill -9 $(pgrep -x etcd)
db=/var/lib/swarm/etcd/data/member/snap/db
pages=$(($(stat -c %s $db) / 4096 - 2))
tr '\0' '\377' < /dev/zero | dd of=$db bs=4096 seek=2 count=$pages conv=notrunc iflag=fullblock 2>/dev/null
kill -CONT $daemon
"""


ALTER = r"""
import os, pathlib, re, signal, subprocess
pids = lambda *how: [int(p) for p in subprocess.run(["pgrep", *how], capture_output=True).stdout.split()]
daemon, etcd = pids("-P", "1", "-f", "swarm.cli.swarmd"), pids("-x", "etcd")
os.kill(daemon[0], signal.SIGSTOP)
os.kill(etcd[0], signal.SIGKILL)
file = pathlib.Path("/var/lib/swarm/etcd/data/member/snap/db")
content, changed = bytearray(file.read_bytes()), 0
for found in re.finditer(PATTERN, bytes(content), re.DOTALL):
    content[found.start(1)] ^= 1
    changed += 1
assert changed
file.write_bytes(content)
os.kill(daemon[0], signal.SIGKILL)
"""
"""Changes etcd's database behind its back; the lab starts the daemon again."""
CLAIM = rb"/swarm/claims/[0-9a-f]{64}.{0,24}?\*\x19([0-9a-z])"
SEALED = rb"/swarm/objects/services/[0-9a-z]{25}.{0,24}?\*..\x01.{60}(.)"


REPAIRED = "The store of this manager has been rebuilt from the other managers.\n"


@pytest.fixture(scope="module")
def managers(lab, web_archive):
    """Three managers; h2 keeps its store on a small disk."""
    made = Cluster(lab(hosts=3, daemon=(*SWARMD, "--etcd-quota", QUOTA)))
    made.output("h2", "mkdir", "-p", "/var/lib/swarm/etcd")
    made.output("h2", "mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", "/var/lib/swarm/etcd")
    made.load(web_archive)
    made.swarm("h1", "init", "--advertise-addr", made.lab.address("h1"))
    token = made.swarm("h1", "join-token", "-q", "manager").strip()
    for host in ("h2", "h3"):
        made.swarm(host, "join", "--token", token, f"{made.lab.address('h1')}:2377")
    made.create("kept", "--replicas", "2")
    made.wait_running("kept", 2)
    wait_state(made, "h1", "OK")
    return made


def store(cluster, host):
    return json.loads(cluster.swarm(host, "system", "info", "--format", "json"))["Store"]


def wait_state(cluster, host, *states, timeout_s=60.0):
    def reached():
        found = store(cluster, host)
        if found["State"] not in states:
            raise SwarmError(f"{found['State']}: {found['Message']}")
        return found

    return cluster.wait_until(reached, f"the store of {host} is {' or '.join(states)}", timeout_s)


def names_on(cluster, host):
    return {name_of(s) for s in cluster.get("/services", host)}


def told_on(cluster, host):
    """What that manager tells of the store of h3."""
    warnings = cluster.get("/info", host)["Warnings"] or ()
    return [w for w in warnings if w.startswith("WARNING: manager h3 says that its store is CORRUPT: ")]


def name_of(service):
    return service["Spec"]["Name"]


def test_a_damaged_log_is_said_and_repaired_by_one_command(managers):
    managers.output("h3", "sh", "-c", DAMAGE)
    found = wait_state(managers, "h3", "CORRUPT")
    assert "swarm system repair" in found["Message"]
    warnings = managers.get("/info", "h3")["Warnings"]
    assert len(warnings) == 1
    assert "CORRUPT" in warnings[0]
    assert {name_of(s) for s in managers.get("/services", "h1")} == {"kept"}, "the others serve"
    managers.wait_until(lambda: told_on(managers, "h1"), "the others tell of it")
    (member,) = (m for m in store(managers, "h1")["Members"] if m["Hostname"] == "h3")
    assert (member["State"], member["Message"]) == ("CORRUPT", found["Message"])
    managers.create("meanwhile", "--replicas", "0")
    managers.kill_daemon("h2")  # if it is too new then to let another member go, the command waits
    managers.wait_daemon("h2")
    said = managers.swarm("h3", "system", "repair", timeout=100)
    assert said.startswith("asking the other managers for a new place in the store ...\n")
    assert said.endswith(REPAIRED)
    assert {name_of(s) for s in managers.get("/services", "h3")} == {"kept", "meanwhile"}
    managers.wait_until(lambda: not told_on(managers, "h1"), "and that it is over")
    members = wait_state(managers, "h3", "OK")["Members"]
    assert sorted(m["Hostname"] for m in members) == ["h1", "h2", "h3"]
    assert "nothing to repair" in managers.refused("h3", "system", "repair")


@pytest.mark.parametrize(
    ("pattern", "said"), [(CLAIM, "data differ from those of the other managers"), (SEALED, "does not open")]
)
def test_data_changed_behind_etcd_s_back_are_found_and_replaced(managers, pattern, said):
    managers.output("h3", sys.executable, "-c", ALTER.replace("PATTERN", repr(pattern)))
    managers.wait_daemon("h3")
    found = wait_state(managers, "h3", "CORRUPT", timeout_s=60)
    assert said in found["Message"]
    assert managers.get("/services", "h1"), "the others serve"
    for command in (("service", "ls"), ("network", "ls"), ("node", "ls"), ("service", "create", "-d", "web")):
        assert "`swarm system repair` on this node" in managers.refused("h3", *command)
    assert "`swarm system repair` on this node" in managers.run("h3", "docker", "service", "ls").stderr
    swarm = managers.get("/info", "h3")["Swarm"]
    assert (swarm["ControlAvailable"], said in swarm["Error"]) == (False, True)
    managers.wait_until(lambda: managers.node_states()["h3"] == "ready", "h3 has its session elsewhere")
    managers.swarm("h3", "system", "repair", timeout=100)
    wait_state(managers, "h3", "OK")
    names = {name_of(s) for s in managers.get("/services", "h1")}
    managers.wait_until(
        lambda: {name_of(s) for s in managers.get("/services", "h3")} == names, "h3 reads it all"
    )


def test_a_used_up_quota_is_compacted_away_and_nothing_acknowledged_is_lost(managers):
    managers.create("pad", "--replicas", "0")
    acked, text, refusals, cleared = "", "", [], False
    for turn in range(400):
        text = f"{turn}-{secrets.token_hex(60_000)}"
        try:
            change_label(managers, "pad", text)
        except SwarmError as error:
            refusals.append(str(error))
            break
        acked = text
    assert refusals, "the quota was never reached"
    assert any("quota" in r or "does not have a leader" in r for r in refusals), refusals

    def writes_again():
        nonlocal cleared
        change_label(managers, "pad", "done")
        cleared = True
        return True

    # What was refused may have been written all the same: the answer can be lost, too.
    managers.wait_until(
        lambda: managers.get("/services/pad")["Spec"]["Labels"]["pad"] in (acked, text), "it can be read"
    )
    managers.wait_until(writes_again, "the alarm is cleared and writes succeed", 40.0)
    assert cleared
    wait_state(managers, "h1", "OK", timeout_s=20)

    def all_small():
        sizes = [m["SizeBytes"] for m in store(managers, "h1")["Members"]]
        return len(sizes) == 3 and all(0 < size < 8 * 1024 * 1024 for size in sizes)

    managers.wait_until(all_small, "each member is defragmented, one after the other", 40.0)
    managers.wait_running("kept", 2)


def change_label(cluster, name, text):
    with cluster.client("h1") as client:
        found = client.get(f"/services/{name}")
        spec = found["Spec"] | {"Labels": {"pad": text}}
        client.post(f"/services/{found['ID']}/update", spec, version=found["Version"]["Index"])


def make_large(cluster, name):
    """A service with a large label, asked for until it is there: the lead may be moving."""

    def made():
        if name not in names_on(cluster, "h1"):
            spec = {
                "Name": name,
                "Labels": {"pad": secrets.token_hex(50_000)},
                "TaskTemplate": {"ContainerSpec": {"Image": "web"}},
                "Mode": {"Replicated": {"Replicas": 0}},
            }
            with cluster.client("h1") as client:
                client.post("/services/create", spec)
        return True

    cluster.wait_until(made, f"{name} is made")


def test_a_full_disk_stops_one_manager_only_and_heals_when_there_is_room(managers):
    managers.run("h2", "sh", "-c", "dd if=/dev/zero of=/var/lib/swarm/etcd/fill bs=1M 2>/dev/null")
    for turn in range(20):
        make_large(managers, f"during{turn}")
    found = wait_state(managers, "h2", "DISK_FULL", timeout_s=40)
    assert "free space" in found["Message"]
    names = {name_of(s) for s in managers.get("/services", "h1")}
    assert {f"during{turn}" for turn in range(20)} <= names
    managers.output("h2", "rm", "/var/lib/swarm/etcd/fill")
    wait_state(managers, "h2", "OK", "SLOW", timeout_s=40)
    managers.wait_until(
        lambda: {name_of(s) for s in managers.get("/services", "h2")} == names, "h2 has caught up", 20.0
    )
    managers.wait_running("kept", 2)


# Last: it may move the lead of the store to h2, whose disk another test fills.
def test_a_founders_damaged_database_is_repaired_while_its_swarmd_lives_on(managers):
    daemon = managers.daemon_pid("h1")
    managers.output("h1", "sh", "-c", DAMAGE_DATABASE)
    assert "swarm system repair" in wait_state(managers, "h1", "CORRUPT")["Message"]
    assert managers.swarm("h1", "system", "repair", timeout=100).endswith(REPAIRED)
    assert names_on(managers, "h1") == names_on(managers, "h2")
    assert managers.daemon_pid("h1") == daemon
    wait_state(managers, "h1", "OK")
