"""Macvlan networks on lab hosts: tasks on the wire of their hosts' own links, with addresses of each host."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from swarm.lab import network
from tests.integration.cluster import Cluster, Json, service
from tests.integration.test_networks import FAST, asks, inside

pytestmark = pytest.mark.root
NEAR = ("--constraint", "node.hostname!=h3")
STEADY_S = 40.0


def settings(host: str) -> tuple[str, ...]:
    """A part of the subnet for each host; eth0 is what the lab's hosts are wired with."""
    part = {"h1": "192.168.7.64/28", "h2": "192.168.7.128/28"}[host]
    place = ("--subnet", "192.168.7.0/24", "--gateway", "192.168.7.1", "--ip-range", part)
    return ("network", "create", "--config-only", *place, "-o", "parent=eth0", "lan")


@pytest.fixture(scope="module")
def wire(cluster: Cluster) -> Iterator[str]:
    """The swarm's network by h1's and h2's own settings; h3 has none."""
    cluster.swarm("h1", *settings("h1"))
    (cluster.docker if shutil.which("docker") else cluster.swarm)("h2", *settings("h2"))
    yield cluster.swarm(
        "h1", "network", "create", "-d", "macvlan", "--scope", "swarm", "--config-from", "lan", "wire"
    ).strip()
    assert cluster.swarm("h1", "network", "rm", "wire") == "wire\n"
    for host in ("h1", "h2"):
        assert cluster.swarm(host, "network", "rm", "lan") == "lan\n"


def address_of(cluster: Cluster, task: Json, link: str = "eth0") -> str:
    """As the task sees it; empty while the link is not there."""
    shown = inside(cluster, task, "ip", "-j", "-4", "address", "show", "dev", link)[1]
    found = [a["local"] for entry in json.loads(shown or "[]") for a in entry.get("addr_info", ())]
    return found[0] if found else ""


def all_reach_all(cluster: Cluster, tasks: list[Json]) -> None:
    for asker in tasks:
        for other in tasks:
            if other is not asker:
                address, short = address_of(cluster, other), other["ID"][:12]
                cluster.wait_until(
                    lambda asker=asker, address=address, short=short: asks(cluster, asker, address) == short,
                    f"{address} answers",
                    10,
                )


def test_tasks_talk_on_the_wire_of_their_hosts(cluster: Cluster, wire: str) -> None:
    with service(cluster, "web", "--replicas", "4", "--network", "wire", *NEAR, *FAST):
        web = cluster.wait_running("web", 4, STEADY_S)
        assert set(cluster.hosts_of(web)) == {"h1", "h2"}
        names = cluster.node_names()
        for task in web:
            third = address_of(cluster, task).rpartition(".")[2]
            assert int(third) in {"h1": range(64, 80), "h2": range(128, 144)}[names[task["NodeID"]]]
        assert len({address_of(cluster, task) for task in web}) == 4
        all_reach_all(cluster, web)
        assert "default via 192.168.7.1 dev eth0" in inside(cluster, web[0], "ip", "route")[1]
        assert "gw0" not in inside(cluster, web[0], "ip", "link")[1]
        assert "network wire is in use by service web" in cluster.refused("h1", "network", "rm", "wire")
        assert "configuration network lan is in use" in cluster.refused("h2", "network", "rm", "lan")
        first = {task["ID"]: address_of(cluster, task) for task in web}
        cluster.kill_daemon("h2")
        cluster.wait_daemon("h2")
        cluster.swarm("h1", "service", "scale", "-d", "web=6")
        more = cluster.wait_running("web", 6, STEADY_S)
        given = {task["ID"]: address_of(cluster, task) for task in more}
        assert first.items() <= given.items()
        assert len(set(given.values())) == 6
        all_reach_all(cluster, more[:3])
    cluster.wait_clean("h1", "h2")
    with service(cluster, "again", "--replicas", "2", "--network", "wire", *NEAR, *FAST):
        again = cluster.wait_running("again", 2, STEADY_S)
        assert {address_of(cluster, task) for task in again} == {"192.168.7.64", "192.168.7.128"}


def test_a_node_without_the_settings_refuses_and_says_so(cluster: Cluster, wire: str) -> None:
    with service(cluster, "lost", "--network", "wire", "--constraint", "node.hostname==h3", *FAST):
        cluster.wait_until(
            lambda: any(
                "network lan not found on this node" in task["Status"].get("Err", "")
                for task in cluster.tasks("lost")
            ),
            "the task says why",
            STEADY_S,
        )


def test_a_lost_link_is_made_again(cluster: Cluster, wire: str) -> None:
    with service(cluster, "web", "--replicas", "2", "--network", "wire", *NEAR, *FAST):
        web = cluster.wait_running("web", 2, STEADY_S)
        before = address_of(cluster, web[0])
        assert inside(cluster, web[0], "ip", "link", "delete", "eth0")[0] == 0
        cluster.wait_until(lambda: address_of(cluster, web[0]) == before, "eth0 is back", STEADY_S)
        all_reach_all(cluster, web)


def test_a_parent_may_come_and_go(cluster: Cluster, wire: str) -> None:
    """On h3, by settings of another network whose parent is made by hand."""
    part = ("--subnet", "192.168.9.0/24", "-o", "parent=par0", "-o", "macvlan_mode=private")
    cluster.swarm("h3", "network", "create", "--config-only", *part, "cable")
    cluster.swarm(
        "h1", "network", "create", "-d", "macvlan", "--internal", "--config-from", "cable", "closed"
    )
    here = ("--constraint", "node.hostname==h3", "--restart-delay", "1s")
    with service(cluster, "web", "--network", "closed", *here, *FAST):

        def says(text: str) -> bool:
            return any(text in task["Status"].get("Err", "") for task in cluster.tasks("web"))

        cluster.wait_until(
            lambda: says("parent link par0 of network cable is not there on this node"),
            "it says why",
            STEADY_S,
        )
        make = "ip link add par0 type veth peer name par1 && ip link set par0 up && ip link set par1 up"
        cluster.output("h3", "sh", "-c", make)
        (web,) = cluster.wait_running("web", 1, STEADY_S)
        address = address_of(cluster, web)
        assert address == "192.168.9.2"
        assert "macvlan mode private" in inside(cluster, web, "ip", "-d", "link", "show", "eth0")[1]
        assert "default" not in inside(cluster, web, "ip", "route")[1]
        cluster.output("h3", "ip", "link", "delete", "par0")
        assert address_of(cluster, web) == ""
        cluster.output("h3", "sh", "-c", make)
        cluster.wait_until(lambda: address_of(cluster, web) == address, "eth0 is back", STEADY_S)
    cluster.wait_clean("h3")
    cluster.output("h3", "ip", "link", "delete", "par0")
    cluster.swarm("h1", "network", "rm", "closed")
    cluster.swarm("h3", "network", "rm", "cable")


def test_with_others_and_with_ports(cluster: Cluster, wire: str) -> None:
    cluster.swarm("h1", "network", "create", "front")
    both = ("--network", "front", "--network", "wire", "-p", "8080:80")
    with service(cluster, "web", "--replicas", "2", *both, *NEAR, *FAST):
        web = cluster.wait_running("web", 2, STEADY_S)
        shorts = {task["ID"][:12] for task in web}
        assert address_of(cluster, web[0], "eth1").startswith("192.168.7.")
        for host in cluster.hosts:
            assert (
                cluster.wait_until(lambda host=host: cluster.url_get(host, 8080), "it answers").strip()
                in shorts
            )
        other, short = address_of(cluster, web[1], "eth1"), web[1]["ID"][:12]
        cluster.wait_until(lambda: asks(cluster, web[0], other) == short, f"{other} answers")
    cluster.wait_until(lambda: cluster.swarm("h1", "network", "rm", "front"), "front is removed")
    mode = ("-p", "mode=host,published=8081,target=80")
    with service(cluster, "near", "--network", "wire", "--network", "bridge", *mode, *NEAR, *FAST):
        (near,) = cluster.wait_running("near", 1, STEADY_S)
        (host,) = cluster.hosts_of([near])
        heard = cluster.wait_until(lambda: cluster.url_get(host, 8081), "it answers on its host")
        assert heard == near["ID"][:12]
        assert "dev gw0" in inside(cluster, near, "ip", "route", "show", "default")[1]


def test_power_cuts_keep_the_settings(cluster: Cluster, wire: str) -> None:
    with service(
        cluster, "web", "--replicas", "1", "--network", "wire", "--constraint", "node.hostname==h2", *FAST
    ):
        (before,) = cluster.wait_running("web", 1, STEADY_S)
        cluster.lab.kill("h2")
        cluster.lab.start("h2")

        def runs_again() -> list[Json]:
            return [t for t in cluster.running("web") if t["ID"] != before["ID"] or address_of(cluster, t)]

        (after,) = cluster.wait_until(runs_again, "web runs on h2 again", STEADY_S)
        assert address_of(cluster, after).startswith("192.168.7.1")
        shown = cluster.get("/networks/lan", "h2")
        assert (shown["ConfigOnly"], shown["Scope"], shown["Driver"]) == (True, "local", "null")


def test_what_is_shown_and_what_is_refused(cluster: Cluster, wire: str) -> None:
    columns = ("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
    assert {"lan null local", "wire macvlan swarm"} <= set(cluster.swarm("h1", *columns).splitlines())
    assert "lan null local" in cluster.swarm("h2", *columns).splitlines()
    assert "lan" not in cluster.swarm("h3", *columns)
    assert cluster.get("/networks/wire")["ConfigFrom"] == {"Network": "lan"}
    before = cluster.objects()
    create = ("network", "create")
    for arguments, text in (
        ((*create, "-d", "macvlan", "x"), "give --config-from NETWORK"),
        ((*create, "--config-from", "lan", "x"), "takes no settings from nodes"),
        (
            (*create, "-d", "macvlan", "--config-from", "lan", "--subnet", "10.9.0.0/24", "x"),
            "user supplied configurations are not supported",
        ),
        ((*settings("h1")[:-1], "wire"), "network with name wire already exists"),
        ((*create, "lan"), "network with name lan already exists"),
        ((*create, "--config-only", "--subnet", "10.9.0.0/24", "x"), "invalid parent link"),
        ((*create, "--config-only", "-o", "parent=eth0", "x"), "needs one --subnet"),
        (("service", "create", "--network", "lan", "web"), "network lan not found"),
        (
            ("service", "create", "--network", "wire", "-p", "mode=host,published=81,target=80", "web"),
            "have their own way out",
        ),
    ):
        assert text in cluster.refused("h1", *arguments)
    assert cluster.objects() == before


@contextmanager
def mode_of_h1(cluster: Cluster, mode: str, parent: str) -> Iterator[str]:
    """A network by other settings of h1's, in a subnet of its own."""
    place = ("--subnet", "192.168.8.0/24", "--ip-range", "192.168.8.64/28")
    how = ("-o", f"parent={parent}", "-o", f"macvlan_mode={mode}")
    cluster.swarm("h1", "network", "create", "--config-only", *place, *how, "other")
    by_it = ("-d", "macvlan", "--scope", "swarm", "--config-from", "other")
    cluster.swarm("h1", "network", "create", *by_it, mode)
    yield mode
    cluster.swarm("h1", "network", "rm", mode)
    cluster.wait_until(
        lambda: cluster.run("h1", "swarm", "network", "rm", "other").returncode == 0, "nobody uses it", 20
    )


ON_H1 = ("--constraint", "node.hostname==h1", *FAST)


def reflects(cluster: Cluster, *, on: bool) -> None:
    """Whether the switch sends back to h1 what comes from there: VEPA, IEEE 802.1Qbg."""
    entry = network.switch_entry(cluster.lab.name)
    command = ("ip", "link", "set", "h1", "type", "bridge_slave", "hairpin", "on" if on else "off")
    subprocess.run([*entry, *command], check=True, timeout=20)


@pytest.mark.parametrize("mode", ["vepa", "private"])
def test_tasks_on_one_parent_are_apart_unless_the_switch_reflects(cluster: Cluster, mode: str) -> None:
    with (
        mode_of_h1(cluster, mode, "eth0"),
        service(cluster, "web", "--replicas", "2", "--network", mode, *ON_H1),
    ):
        asker, other = cluster.wait_running("web", 2, STEADY_S)
        address, short = address_of(cluster, other), other["ID"][:12]
        cluster.wait_until(lambda: asks(cluster, other, address) == short, "it listens", 10)
        assert asks(cluster, asker, address) == ""
        reflects(cluster, on=True)
        try:
            if mode == "vepa":
                cluster.wait_until(lambda: asks(cluster, asker, address) == short, "by the switch", 10)
            else:
                assert asks(cluster, asker, address) == ""
        finally:
            reflects(cluster, on=False)
    cluster.wait_until(lambda: not cluster.tasks("web"), "web is gone", STEADY_S)


def test_passthru_gives_one_task_the_parent(cluster: Cluster) -> None:
    """The other end of the parent's cable is on the host itself here: who is there is its neighbour."""
    cluster.output("h1", "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan0-far")
    for command in ("address add 192.168.8.1/24 dev lan0-far", "link set lan0-far up", "link set lan0 up"):
        cluster.output("h1", "ip", *command.split())
    mac = json.loads(cluster.output("h1", "ip", "-j", "link", "show", "lan0"))[0]["address"]
    with mode_of_h1(cluster, "passthru", "lan0"):
        options = ("--replicas", "1", "--network", "passthru", *ON_H1)
        with service(cluster, "one", *options):
            (one,) = cluster.wait_running("one", 1, STEADY_S)
            url = f"http://{address_of(cluster, one)}/"
            cluster.wait_until(
                lambda: (
                    cluster.run("h1", "busybox", "wget", "-q", "-O", "-", url).stdout.strip()
                    == one["ID"][:12]
                ),
                "the far end reaches it",
                10,
            )
            assert mac in inside(cluster, one, "ip", "link", "show", "eth0")[1], "it has the parent's own MAC"
            cluster.create("two", *options)
            refused = "parent link lan0 of network other cannot carry 192.168.8."
            cluster.wait_until(
                lambda: [t for t in cluster.tasks("two") if t["Status"].get("Err", "").startswith(refused)],
                "a second task is refused",
                20,
            )
        cluster.wait_running("two", 1, STEADY_S)
        cluster.swarm("h1", "service", "rm", "two")
        cluster.wait_until(lambda: not cluster.tasks("two"), "two is gone", STEADY_S)
    cluster.output("h1", "ip", "link", "delete", "lan0")
