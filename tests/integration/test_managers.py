"""Several managers on four real hosts: they come and go, fail over, lose the quorum and are recovered.

The tests follow one another on one cluster: h1 to h3 are its managers between them, h4 is a worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from tests.chaos.invariants import check_fenced
from tests.integration.cluster import Cluster
from tests.integration.test_faults import pids

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

MANAGERS = ("h1", "h2", "h3")
HOSTS = (*MANAGERS, "h4")
HISTORY = Path(__file__).with_name("history_program.py")
SLOW_MACHINE_S = 3.0
"""What a loaded machine may add to a figure of the product."""
LEAVE_S = 25.0
NO_LEADER = "The swarm does not have a leader."


class Managers(Cluster):
    """A cluster that is asked through whichever manager is named."""

    def nodes(self, via="h1"):
        return {n["Description"]["Hostname"]: n for n in self.get("/nodes", via)}

    def standing(self, via="h1"):
        """Host -> how the cluster sees it as a manager: leader, reachable, unreachable."""
        found = {}
        for name, node in self.nodes(via).items():
            if status := node.get("ManagerStatus"):
                found[name] = "leader" if status.get("Leader") else status["Reachability"]
        return found

    def leader(self, via="h1"):
        return next((name for name, what in self.standing(via).items() if what == "leader"), "")

    def wait_managers(self, *wanted, via="h1", timeout_s=20.0):
        """Until just these are managers, all reachable, and one of them leads."""

        def settled():
            found = self.standing(via)
            return set(found) == set(wanted) and sorted(found.values()) == sorted(
                ["leader", *["reachable"] * (len(wanted) - 1)]
            )

        self.wait_until(settled, f"{wanted} are the managers", timeout_s)

    def wait_ready(self, via="h1", timeout_s=20.0):
        def ready():
            return {n["Status"]["State"] for n in self.nodes(via).values()} == {"ready"}

        self.wait_until(ready, "all nodes are ready", timeout_s)

    def web(self, via="h1"):
        """The tasks of `web` that are to run: id -> host."""
        names = {node["ID"]: name for name, node in self.nodes(via).items()}
        tasks = self.get("/tasks", via, filters={"service": ["web"], "desired-state": ["running"]})
        return {t["ID"]: names[t["NodeID"]] for t in tasks if t["Status"]["State"] == "running"}

    def wait_web(self, count, via="h1", timeout_s=20.0, not_on=()):
        def there():
            found = self.web(via)
            return found if len(found) == count and not set(found.values()) & set(not_on) else None

        return self.wait_until(there, f"{count} tasks of web run", timeout_s)

    def wait_only_wanted(self):
        """Until the hosts run what they are to run: one that comes back stops what was replaced meanwhile."""

        def only_wanted():
            running = {task: host for host, found in self.all_pids().items() for task in found}
            return running == self.web()

        self.wait_until(only_wanted, "the hosts run the tasks of web and nothing else")

    def label(self, via, value):
        """A small write; raises SwarmError when the manager cannot do it."""
        with self.client(via) as client:
            node = next(n for n in client.get("/nodes") if n["Description"]["Hostname"] == "h4")
            spec = {**node["Spec"], "Labels": {"mark": value}}
            client.post(f"/nodes/{node['ID']}/update", spec, version=node["Version"]["Index"])

    def wait_worker(self, host):
        """Until the host itself has done with being a manager."""
        self.wait_until(
            lambda: not self.get("/info", host)["Swarm"]["ControlAvailable"], f"{host} serves not"
        )
        self.wait_until(
            lambda: self.run(host, "ls", "/var/lib/swarm/etcd").returncode != 0, f"{host} has wiped its store"
        )

    def wait_write(self, via, timeout_s, mark=""):
        clock = SystemClock()
        began = clock.monotonic()

        def written():
            self.label(via, mark or str(began))
            return True

        self.wait_until(written, f"{via} takes a write", timeout_s)
        return clock.monotonic() - began

    def epoch(self, via):
        return int(self.output(via, sys.executable, str(HISTORY)))

    def beats(self, via):
        lines = self.output(via, sys.executable, str(HISTORY), "beats").splitlines()
        counts = dict(line.split() for line in lines)
        return [counts.get(self.nodes(via)[name]["ID"]) for name in MANAGERS]

    def wait_heard(self, via="h1"):
        """Until managers that were just started have heard each other: before, silence has to last longer.

        In the first round each is seen to beat again, in the second each has seen all others do so.
        """
        for _ in range(2):
            old = self.beats(via)
            self.wait_until(
                lambda old=old: all(a != b for a, b in zip(old, self.beats(via), strict=True)),
                "every manager has beaten",
            )

    def history(self, via, since):
        """(epochs, beats as (epoch, revision)) on record in the host's store from that epoch on."""
        told = self.output(via, sys.executable, str(HISTORY), str(since))
        lines = [line.split() for line in told.splitlines()]
        epochs = [int(rest[0]) for what, *rest in lines if what == "epoch"]
        return epochs, [(int(rest[0]), int(rest[1])) for what, *rest in lines if what == "beat"]

    def check_history(self, via, since):
        """One leader after the other: nobody's beat was accepted when the next one had begun."""
        epochs, beats = self.history(via, since)
        assert since == epochs[0] < epochs[-1], "the lead was taken over"
        assert {epochs[0], epochs[-1]} <= {epoch for epoch, _ in beats}, "both beat"
        assert check_fenced(epochs, beats) == []

    def version(self, name, via="h1"):
        return self.nodes(via)[name]["Version"]["Index"]

    def rejoin(self, host, via, role="manager"):
        """The host's old record out, the host in again."""
        old = self.nodes(via)[host]["ID"]
        self.swarm(via, "node", "demote", old)
        self.swarm(via, "node", "rm", "--force", old)
        token = self.swarm(via, "join-token", "-q", role).strip()
        told = self.swarm(host, "join", "--token", token, f"{self.lab.address(via)}:2377")
        assert told.strip() == f"This node joined a swarm as a {role}."
        assert self.nodes(via)[host]["ID"] != old

    def all_pids(self, hosts=HOSTS):
        return self.on_all(lambda host: pids(self, host), hosts)

    def signal(self, host, name):
        """Send it to the host's swarmd and its etcd, both at once."""
        store = self.output(host, "pgrep", "-x", "etcd").split()
        self.output(host, "kill", f"-{name}", str(self.daemon_pid(host)), *store)

    def others(self, host):
        return [name for name in MANAGERS if name != host]


@pytest.fixture(scope="module")
def swarm(lab, web_archive):
    made = Managers(lab(hosts=4))
    made.load(web_archive)
    first = made.lab.address("h1")
    made.swarm("h1", "init", "--advertise-addr", first)
    token = made.swarm("h1", "join-token", "-q", "manager").strip()
    told = made.swarm("h2", "join", "--token", token, f"{first}:2377")
    assert told.strip() == "This node joined a swarm as a manager."
    token = made.swarm("h1", "join-token", "-q", "worker").strip()
    for name in ("h3", "h4"):
        told = made.swarm(name, "join", "--token", token, f"{first}:2377")
        assert told.strip() == "This node joined a swarm as a worker."
    made.create("web", "--replicas", "8", "-p", "8080:80", "--stop-grace-period", "1s")
    made.wait_web(8)
    return made


@pytest.fixture
def three(swarm):
    """h1, h2 and h3 are managers, all is well."""
    swarm.wait_managers(*MANAGERS, timeout_s=40.0)
    swarm.wait_ready()
    swarm.wait_web(8)
    swarm.wait_only_wanted()
    return swarm


# --- membership ----------------------------------------------------------------------------------------


def test_several_are_promoted_and_demoted_at_once_and_keep_their_containers(swarm):
    before = swarm.all_pids()
    told = swarm.swarm("h2", "node", "promote", "h3", "h4")
    assert "Node h3 promoted to a manager in the swarm." in told
    swarm.wait_managers("h1", "h2", "h3", "h4")

    def demoted():  # a node's record changes while it settles, and Docker's client tries once
        done = swarm.run("h3", "docker", "node", "demote", "h4")
        assert done.returncode == 0 or "out of sequence" in done.stderr
        return done.stdout.strip() == "Manager h4 demoted in the swarm."

    swarm.wait_until(demoted, "h4 is demoted")
    swarm.wait_managers(*MANAGERS)
    swarm.wait_worker("h4")
    swarm.wait_ready()
    assert swarm.all_pids() == before


def test_every_manager_reads_and_writes(three):
    for turn, name in enumerate(MANAGERS):
        mark = f"turn{turn}"
        three.wait_write(name, 5.0, mark)
        seen = [three.nodes(other)["h4"]["Spec"]["Labels"]["mark"] for other in MANAGERS]
        assert seen == [mark] * 3
    assert "ControlAvailable" in three.get("/info", "h4")["Swarm"]
    assert "This node is not a swarm manager" in three.refused("h4", "node", "ls")


def test_refusals_of_membership_change_nothing(three):
    told = three.refused("h1", "node", "rm", "h3")
    assert "is a cluster manager and is a member of the raft cluster" in told
    assert "node nobody not found" in three.refused("h1", "node", "promote", "nobody")
    assert "participating as a manager" in three.refused("h2", "leave")
    assert "already part of a swarm" in three.refused("h3", "join", "--token", "SWMTKN-1-a-b", "h1:2377")
    assert three.standing().keys() == set(MANAGERS)


def test_demoting_the_leader_hands_over_first(three):
    leader, before = three.leader(), three.all_pids()
    daemon = three.daemon_pid(leader)
    via = three.others(leader)[0]
    three.swarm(via, "node", "update", "--role", "worker", leader)
    three.wait_managers(*three.others(leader), via=via)
    three.wait_write(via, 5.0)
    three.swarm(via, "node", "update", "--role", "manager", leader)
    three.wait_managers(*MANAGERS, via=via)
    assert three.all_pids() == before
    assert three.daemon_pid(leader) == daemon


def test_a_storm_of_role_changes_leaves_managers_and_members_equal(three):
    before = three.all_pids()
    for turn in range(6):
        for name in ("h3", "h4"):
            three.swarm("h1", "node", "promote" if turn % 2 else "demote", name)
    three.wait_managers(*MANAGERS, "h4", timeout_s=60.0)
    three.swarm("h1", "node", "demote", "h4")
    three.wait_managers(*MANAGERS, timeout_s=30.0)
    three.wait_worker("h4")
    three.wait_ready()
    assert three.all_pids() == before


def test_a_worker_that_leaves_gets_nothing_more(three):
    old = set(three.web())
    three.swarm("h4", "leave")
    three.wait_until(lambda: three.nodes()["h4"]["Status"]["State"] == "down", "the one that left is down")
    now = three.wait_web(8, not_on=("h4",))
    assert len(old & set(now)) == 6, "only its own two were replaced"
    assert not three.get("/tasks", filters={"service": ["web"], "node": ["h4"], "desired-state": ["running"]})
    three.swarm("h1", "node", "rm", "h4")
    token = three.swarm("h1", "join-token", "-q", "worker").strip()
    three.swarm("h4", "join", "--token", token, f"{three.lab.address('h2')}:2377")
    three.wait_ready()


# --- failover ------------------------------------------------------------------------------------------


def test_all_daemons_restarted_at_once_move_nothing(three):
    before, tasks = three.all_pids(), three.web()
    three.on_all(lambda host: three.output(host, "kill", str(three.daemon_pid(host))))
    three.on_all(three.wait_daemon)
    three.wait_managers(*MANAGERS, timeout_s=30.0)
    three.wait_ready(timeout_s=30.0)
    three.wait_heard()
    assert three.web() == tasks
    assert three.all_pids() == before


def test_a_leader_that_loses_power_is_replaced_and_so_are_its_tasks(three):
    leader, tasks = three.leader(), three.web()
    via, *_ = three.others(leader)
    rest = [name for name in HOSTS if name != leader]
    before = three.all_pids(rest)
    three.lab.kill(leader)
    assert three.wait_write(via, 5.0 + SLOW_MACHINE_S) < 5.0 + SLOW_MACHINE_S
    now = three.wait_web(8, via, 12.0 + SLOW_MACHINE_S, not_on=(leader,))
    kept = {task for task, host in tasks.items() if host != leader}
    assert kept <= set(now), "nothing else was touched"
    for host in rest:
        assert before[host].items() <= pids(three, host).items()
    three.wait_until(lambda: three.standing(via)[leader] == "unreachable", "it is seen as unreachable")
    three.lab.start(leader)
    three.wait_managers(*MANAGERS, via=via, timeout_s=30.0)
    three.wait_ready(via)


def test_a_leader_that_stood_still_changes_nothing(three):
    leader = three.leader()
    via, *_ = three.others(leader)
    rest = [name for name in HOSTS if name != leader]
    before, since = three.all_pids(rest), three.epoch(via)
    three.signal(leader, "STOP")
    try:
        three.wait_write(via, 5.0 + SLOW_MACHINE_S)
        after = three.wait_web(8, via, 20.0, not_on=(leader,))
    finally:
        three.signal(leader, "CONT")
    three.wait_managers(*MANAGERS, via=via, timeout_s=20.0)
    three.wait_ready(via)
    assert three.leader(via) != leader
    assert three.web(via) == after
    three.check_history(via, since)
    for host in rest:
        assert before[host].items() <= pids(three, host).items()


def test_a_leader_that_is_cut_off_from_the_others(three):
    leader = three.leader()
    via, other = three.others(leader)
    before, since = three.all_pids(["h4"]), three.epoch(via)
    for name in (via, other):
        three.lab.cut(leader, name)
    # h4 reaches all of them: if its manager was the one cut off, it moves.
    three.wait_write(via, 5.0 + SLOW_MACHINE_S)
    now = three.wait_web(8, via, 20.0, not_on=(leader,))
    assert before["h4"].items() <= pids(three, "h4").items(), "a move restarts nothing"
    three.wait_until(lambda: three.nodes(via)["h4"]["Status"]["State"] == "ready", "h4 is ready")
    told = three.refused(leader, "node", "ls")
    assert NO_LEADER in told
    three.lab.heal()
    three.wait_managers(*MANAGERS, via=via, timeout_s=20.0)
    three.wait_ready(via)
    assert three.web(via).keys() == now.keys()
    three.check_history(via, since)


# --- without a quorum ----------------------------------------------------------------------------------


def refuses(cluster, host, *command):
    """How long the host takes to say that there is no leader."""
    clock = SystemClock()
    began = clock.monotonic()
    assert NO_LEADER in cluster.refused(host, *command)
    return clock.monotonic() - began


def test_a_lost_quorum_is_told_and_heals_by_itself(three):
    before = {host: pids(three, host) for host in ("h1", "h4")}
    three.lab.kill("h2")
    three.lab.kill("h3")
    three.wait_until(lambda: NO_LEADER in three.run("h1", "swarm", "node", "ls").stderr, "h1 knows", 15.0)
    assert refuses(three, "h1", "service", "ls") < 5.0 + SLOW_MACHINE_S
    assert refuses(three, "h1", "service", "scale", "-d", "web=9") < 5.0 + SLOW_MACHINE_S
    assert {host: pids(three, host) for host in ("h1", "h4")} == before
    three.lab.start("h2")
    three.lab.start("h3")
    three.wait_managers(*MANAGERS, timeout_s=40.0)
    three.wait_ready(timeout_s=30.0)
    three.wait_web(8)
    for host in ("h1", "h4"):
        assert before[host].items() <= pids(three, host).items(), "no task there was restarted"


def test_one_manager_goes_on_alone_and_the_old_ones_become_workers(three):
    services, nodes = three.get("/services"), set(three.nodes())
    before, version = {host: pids(three, host) for host in ("h1", "h4")}, three.version("h4")
    three.lab.kill("h2")
    three.lab.kill("h3")
    told = three.swarm("h1", "init", "--force-new-cluster", "--advertise-addr", three.lab.address("h1"))
    assert "Swarm initialized" in told
    three.wait_managers("h1")
    assert [s["ID"] for s in three.get("/services")] == [s["ID"] for s in services]
    assert set(three.nodes()) == nodes
    three.wait_until(lambda: three.nodes()["h4"]["Status"]["State"] == "ready", "h4 is back")
    assert three.version("h4") > version
    h4 = three.nodes()["h4"]
    with three.client("h1") as client, pytest.raises(SwarmError, match="update out of sequence"):
        client.post(f"/nodes/{h4['ID']}/update", h4["Spec"], version=version)
    for host in ("h1", "h4"):
        assert before[host].items() <= pids(three, host).items()
    three.lab.start("h2")
    three.wait_until(lambda: three.nodes()["h2"]["Status"]["State"] == "ready", "h2 is back", 40.0)
    three.wait_managers("h1")
    three.wait_worker("h2")
    # Promoted before it can have noticed: it waits for its former quorum, is told, and enters anew.
    three.swarm("h1", "node", "promote", "h2", "h3")
    three.lab.start("h3")
    three.wait_ready(timeout_s=40.0)
    three.wait_managers(*MANAGERS, timeout_s=40.0)


# --- places in the store that are lost -----------------------------------------------------------------


def test_a_manager_whose_disk_was_wiped_joins_anew(three):
    three.output("h3", "sh", "-c", "rm -rf /var/lib/swarm/node /var/lib/swarm/etcd /var/lib/swarm/manager")
    three.kill_daemon("h3")
    three.wait_daemon("h3")
    three.wait_until(lambda: three.nodes()["h3"]["Status"]["State"] == "down", "the old h3 is down")
    old, token = set(three.node_names()), three.swarm("h1", "join-token", "-q", "manager")
    told = three.refused("h3", "join", "--token", token.strip(), f"{three.lab.address('h1')}:2377")
    assert "is a manager at" in told
    assert "swarm node demote" in told
    assert set(three.node_names()) == old, "nothing was written"
    three.rejoin("h3", "h1")
    three.wait_managers(*MANAGERS, timeout_s=30.0)
    three.wait_web(8)


def test_a_manager_whose_store_was_wiped_does_not_vote_and_is_repaired(three):
    before, node = three.all_pids(), three.nodes()["h3"]["ID"]
    three.output("h3", "rm", "-rf", "/var/lib/swarm/etcd")
    three.kill_daemon("h3")
    three.wait_daemon("h3")

    def told():
        return "are missing" in three.run("h3", "swarm", "system", "info").stdout

    three.wait_until(told, "h3 says that its store is missing", 30.0)
    three.wait_write("h1", 5.0)
    three.swarm("h3", "system", "repair", timeout=60.0)
    three.wait_managers(*MANAGERS, timeout_s=40.0)
    assert three.nodes()["h3"]["ID"] == node
    assert three.all_pids() == before


def test_leaving_by_force_without_a_quorum_does_not_hang(three):
    three.lab.kill("h2")
    three.lab.kill("h3")
    three.wait_until(lambda: NO_LEADER in three.run("h1", "swarm", "node", "ls").stderr, "h1 knows", 15.0)
    three.swarm("h1", "leave", "--force", timeout=LEAVE_S)
    three.wait_clean("h1", of_member=True)
    three.lab.start("h2")
    three.lab.start("h3")
    three.wait_until(lambda: three.standing("h2").get("h1") == "unreachable", "h1 is missed", 40.0)
    three.rejoin("h1", "h2")
    three.wait_managers(*MANAGERS, via="h2", timeout_s=40.0)


def test_a_joiner_that_dies_half_way_takes_its_place_when_it_returns(three):
    three.swarm("h1", "node", "promote", "h4")
    three.lab.kill("h4")  # a learner by now, or on its way to be one
    three.wait_write("h2", 5.0)
    three.lab.start("h4")
    three.wait_managers(*MANAGERS, "h4", timeout_s=40.0)
    three.swarm("h1", "node", "demote", "h4")
    three.wait_managers(*MANAGERS)
    three.wait_worker("h4")
    three.wait_ready()


def test_managers_leave_until_one_is_left(three):
    assert "at least one" not in three.swarm("h3", "leave", "--force")
    three.wait_until(lambda: "h3" not in three.standing(), "h3 is no manager any more")
    three.swarm("h2", "leave", "--force")
    three.wait_managers("h1")
    three.wait_clean("h2", "h3", of_member=True)
    told = three.refused("h1", "leave")
    assert "Removing the last manager erases all current state of the swarm." in told
    three.wait_web(8, not_on=("h2", "h3"))


def test_nothing_is_left_when_the_service_is_gone(swarm):
    swarm.swarm("h1", "service", "rm", "web")
    swarm.wait_clean()
    with pytest.raises(SwarmError):
        swarm.get("/nodes", "h4")
