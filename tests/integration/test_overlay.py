"""The data path between hosts that are network namespaces, proved by traffic: no part of it is faked."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.overlay_site import (
    INGRESS,
    OUTSIDE,
    PORT,
    TIMEOUT,
    UDP_CLIENT,
    UDP_ECHO,
    UDP_SERVER,
    Site,
    Task,
    fetch,
    port,
    serve_http,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.up()
        yield site
    finally:
        site.down()


@pytest.fixture
def web(site: Site, tmp_path: Path) -> list[Task]:
    """Three tasks that say their address: two on h1, one on h2, none on h3; nothing published yet."""
    site.apply([])
    tasks = [site.hosts[0].attach(11), site.hosts[0].attach(12), site.hosts[1].attach(21)]
    for task in tasks:
        serve_http(task, tmp_path)
    return tasks


def test_every_host_answers_with_every_replica(site: Site, web: list[Task]) -> None:
    site.apply([port(*web)])
    everyone = Counter({task.address: 2 for task in web})
    for host in site.hosts:
        assert fetch(site.outside, host.address, 6) == everyone, host.name
        assert fetch(host.nsenter, "127.0.0.1", 6) == everyone, host.name
        assert fetch(host.nsenter, host.address, 6) == everyone, host.name
    assert fetch(web[0].nsenter, site.hosts[2].address, 6) == everyone


def test_backends_come_and_go(site: Site, web: list[Task]) -> None:
    first = site.hosts[0]
    site.apply([port(*web)])
    site.apply([port(web[0], web[2])])
    assert fetch(site.outside, first.address, 4) == {web[0].address: 2, web[2].address: 2}
    site.apply([port(web[2], suspects=(web[0], web[1]))])
    assert fetch(site.outside, first.address, 3) == {web[2].address: 3}
    site.apply([port(suspects=(web[0], web[1]))])
    assert fetch(site.outside, first.address, 4) == {web[0].address: 2, web[1].address: 2}
    site.apply([port()])
    refused = "curl -s -m 5 -o /dev/null http://%s:8080/; echo $?"
    assert site.outside("sh", "-c", refused % first.address).strip() == "7"
    assert first.nsenter("sh", "-c", refused % "127.0.0.1").strip() == "7"
    site.apply([port(web[1])])
    assert fetch(first.nsenter, "127.0.0.1", 2) == {web[1].address: 2}
    site.apply([])
    assert site.outside("sh", "-c", refused % first.address).strip() == "7"


def test_a_port_may_keep_its_clients_addresses(site: Site, web: list[Task]) -> None:
    first, second = site.hosts[:2]
    for task in (web[0], web[2]):
        task.serve(sys.executable, "-c", UDP_ECHO)
        task.wait_for("udp", 53)

    def seen_by(*tasks: Task, host: str, keep: bool) -> str:
        site.apply([port(*tasks, protocol="udp", target=53) | {"preserves_source": keep}])
        return site.outside(sys.executable, "-c", UDP_CLIENT, host, str(PORT)).strip()

    assert seen_by(web[0], host=first.address, keep=True) == OUTSIDE
    assert seen_by(web[0], host=second.address, keep=True) == second.ingress_address
    assert seen_by(web[2], host=second.address, keep=True) == OUTSIDE
    assert seen_by(web[2], host=second.address, keep=False) == second.ingress_address
    site.apply([port(*web) | {"preserves_source": True}])
    everyone = Counter({task.address: 2 for task in web})
    assert fetch(site.outside, first.address, 6) == everyone
    assert fetch(first.nsenter, "127.0.0.1", 6) == everyone
    assert fetch(web[0].nsenter, first.address, 6) == everyone


def test_udp_moves_to_another_target(site: Site, web: list[Task]) -> None:
    for task in web[::2]:
        task.serve(sys.executable, "-c", UDP_SERVER, task.address)
        task.wait_for("udp", 53)
    third = site.hosts[2].address

    def answer() -> str:
        return site.outside(sys.executable, "-c", UDP_CLIENT, third, str(PORT)).strip()

    for task in (web[0], web[2], web[0]):
        site.apply([port(task, protocol="udp", target=53)])
        assert answer() == task.address


def test_host_mode_and_outgoing(site: Site, web: list[Task], tmp_path: Path) -> None:
    site.apply([])
    task = site.hosts[2].attach(31, host_ports=(("tcp", 9000, 80), ("tcp", 0, 80)))
    serve_http(task, tmp_path)
    third = site.hosts[2]
    assert fetch(site.outside, third.address, number=9000) == {task.address: 1}
    assert fetch(third.nsenter, "127.0.0.1", number=9000) == {task.address: 1}
    assert fetch(third.nsenter, "127.0.0.1", number=49153) == {task.address: 1}
    refused = f"curl -s -m 3 http://{site.hosts[0].address}:9000/; echo $?"
    assert site.outside("sh", "-c", refused).strip() == "7"
    second = third.ask_raw("attach", task_id="other", attachments=[], host_ports=[["tcp", 9000, 80]])
    assert second["error"] == "Bind for 0.0.0.0:9000 failed: port is already allocated"

    # Outgoing: the world sees the host, having no route to the task; other tasks of the host are out of
    # reach through the gateway.
    assert task.nsenter("busybox", "ping", "-c", "1", "-W", "2", OUTSIDE, check=True)
    other = third.attach(32)
    cut = "curl -s -m 1 http://%s:80/; echo $?"
    assert other.nsenter("sh", "-c", cut % task.gateway_address).strip() == "28"
    assert fetch(other.nsenter, task.address, number=80) == {task.address: 1}
    bridged = "net.bridge.bridge-nf-call-iptables"
    for translates_bridged in (1, 0):
        third.nsenter("sysctl", "-q", "-w", f"{bridged}={translates_bridged}")
        for client in (other, task):
            assert fetch(client.nsenter, third.address, 2, number=9000) == {task.address: 2}, (
                translates_bridged
            )
    for cluster_port in (2377, 2378):
        third_port = f"curl -s -m 1 http://{third.address}:{cluster_port}/; echo $?"
        assert other.nsenter("sh", "-c", third_port).strip() == "28"


def test_a_hosts_own_services_are_not_on_the_overlay(site: Site, web: list[Task]) -> None:
    site.apply([port(*web)])
    second, task = site.hosts[1], web[0]
    argv = ["nsenter", f"--net=/run/netns/{second.netns}", "busybox", "httpd", "-f", "-p", "7777"]
    server = subprocess.Popen(argv)
    try:
        site.outside("sh", "-c", f"until curl -s -o /dev/null http://{second.address}:7777/; do :; done")
        for host in site.hosts[:2]:
            cut = f"curl -s -m 1 http://{host.ingress_address}:7777/; echo $?"
            assert task.nsenter("sh", "-c", cut).strip() == "28"
    finally:
        server.kill()
        server.wait(TIMEOUT)
    assert set(fetch(task.nsenter, second.ingress_address, times=3)) == {t.address for t in web}


def test_verify_mends_what_others_break(site: Site, web: list[Task]) -> None:
    site.apply([port(*web)])
    first, second = site.hosts[0], site.hosts[1]
    everyone = Counter({task.address: 2 for task in web})
    in_overlay = [("nsenter", f"--net={host.directory}/netns/ov-{INGRESS}", "ip") for host in (first, second)]
    breakages = (
        (first, ("nft", "flush", "ruleset")),
        (first, ("nft", "delete", "table", "ip", "swarm")),
        (first, ("ip", "link", "del", "swl001000")),
        (first, ("ip", "link", "del", "swarm-gw")),
        (first, ("sysctl", "-q", "-w", "net.ipv4.ip_forward=0")),
        (second, (*in_overlay[1], "link", "del", "vxlan0")),
        (second, (*in_overlay[1], "link", "del", "br0")),
        (first, (*in_overlay[0], "neigh", "flush", "dev", "vxlan0", "nud", "permanent")),
        (first, ("nsenter", f"--net={web[0].netns}", "ip", "link", "del", "eth0")),
    )
    first.nsenter("nft", "add", "table", "ip", "somebody")
    assert first.ask("verify") == 0, "another's table is not our business"
    for host, command in breakages:
        host.nsenter(*command)
        assert host.ask("verify") > 0 or command[0] == "sysctl", command
        assert host.ask("verify") == 0, command
        assert fetch(site.outside, first.address, 6) == everyone, command
        assert web[0].nsenter("busybox", "ping", "-c", "1", "-W", "2", OUTSIDE), command


def test_a_killed_process_disturbs_nothing_and_leave_removes_all(site: Site, web: list[Task]) -> None:
    site.apply([port(*web)])
    first = site.hosts[0]
    kept = first.attach(13, host_ports=(("tcp", 9001, 80),))
    site.apply([port(*web)])
    first.end()
    everyone = Counter({task.address: 2 for task in web})
    assert fetch(site.outside, first.address, 6) == everyone
    first.begin()
    assert fetch(site.outside, first.address, 6) == everyone
    again = first.attach(13, host_ports=(("tcp", 9001, 80),))
    assert again.gateway_address == kept.gateway_address
    site.apply([port(*web)])
    assert first.ask("verify") == 0
    first.ask("detach", task_id=kept.task_id)
    first.ask("detach", task_id=kept.task_id)
    first.tasks.remove(kept)
    assert fetch(site.outside, first.address, 6) == everyone

    for task in first.tasks:
        task.stop()
    first.ask("close", remove=True)
    assert first.nsenter("nft", "list", "ruleset") == ""
    links = {link["ifname"] for link in json.loads(first.nsenter("ip", "-j", "link"))}
    assert links == {"lo", "eth0"}
    assert list(first.directory.glob("*/*")) == []
    assert str(first.directory) not in Path("/proc/self/mounts").read_text()


def test_killed_at_any_moment_it_goes_on(site: Site, tmp_path: Path) -> None:
    """SIGKILL later and later in a first `apply` and `attach`: the next process completes both."""
    first = site.hosts[0]
    task = Task(task_id=f"task{11:021d}", address="10.0.0.11", host=first)
    first.tasks.append(task)
    for delay in range(0, 40, 4):
        first.send("apply", networks=[site.network(first)], ports=[port(task)])
        first.send("attach", task_id=task.task_id, attachments=[[INGRESS, f"{task.address}/24"]])
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.process.wait(delay / 1000)
        first.end()
        first.begin()
        site.apply([port(task)])
        task = first.attach(11)
        serve_http(task, tmp_path)
        assert fetch(site.outside, site.hosts[1].address, 2) == {task.address: 2}, delay
        assert fetch(site.outside, first.address, 2) == {task.address: 2}, delay
        assert first.ask("verify") == 0
        task.stop()
        first.ask("close", remove=True)
        first.ask("start")
        assert list(first.directory.glob("*/*")) == []
