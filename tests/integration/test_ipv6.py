"""Published ports for clients that come by IPv6, proved by traffic: nothing is faked."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, http_get, service, short
from tests.integration.overlay_site import (
    IPV6_UNDERLAY,
    PORT,
    UDP_CLIENT,
    UDP_ECHO,
    UDP_SERVER,
    Host,
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

UDP_CLIENT6 = UDP_CLIENT.replace("type=", "socket.AF_INET6, ")


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
    """Three tasks that say their address: two on h1, one on h2, none on h3."""
    site.apply([])
    tasks = [site.hosts[0].attach(11), site.hosts[0].attach(12), site.hosts[1].attach(21)]
    for task in tasks:
        serve_http(task, tmp_path)
    return tasks


def test_a_services_ports_answer_on_every_hosts_ipv6_addresses(cluster: Cluster) -> None:
    """As a user has it: made by either client, asked from outside of the cluster and on the hosts."""
    with service(cluster, "web", "--replicas", "3", "--publish", "8080:80"):
        expected = dict.fromkeys(short(cluster.wait_running("web", 3)), 1)
        cluster.docker(
            "h1",
            "service",
            "create",
            "-d",
            "--name",
            "near",
            "--mode",
            "global",
            "--publish",
            "published=9090,target=80,mode=host",
            "web",
        )
        near = cluster.wait_running("near", 3)

        def answers(host: str, number: int) -> Counter[str]:
            return Counter(http_get(cluster.lab.ipv6_address(host), number, "/", 5) for _ in range(3))

        for host in cluster.hosts:
            cluster.wait_until(lambda host=host: answers(host, 8080) == expected, f"{host} answers")
            (own,) = short(t for t in near if cluster.node_names()[t["NodeID"]] == host)
            cluster.wait_until(lambda host=host, own=own: answers(host, 9090) == {own: 3}, f"{own} answers")
            loopback = ("busybox", "wget", "-q", "-O", "-", "http://[::1]:8080/")
            assert cluster.output(host, *loopback).strip() in expected
        cluster.docker("h1", "service", "rm", "near")
    cluster.wait_clean()


def refused(where: object, address: str, number: int = PORT) -> bool:
    script = f"curl -s -m 5 -o /dev/null http://{address}:{number}/; echo $?"
    return where("sh", "-c", script).strip() == "7"


def relay_pid(host: Host) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.directory / "relay.sock"))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


def test_every_host_answers_with_every_replica(site: Site, web: list[Task]) -> None:
    site.apply([port(*web)])
    everyone = Counter({task.address: 2 for task in web})
    for host in site.hosts:
        assert fetch(site.outside, f"[{host.ipv6_address}]", 6) == everyone, host.name
        assert fetch(host.nsenter, "[::1]", 6) == everyone, host.name
        assert fetch(host.nsenter, f"[{host.ipv6_address}]", 6) == everyone, host.name
        assert fetch(host.nsenter, "127.0.0.1", 6) == everyone, host.name


def test_backends_come_and_go(site: Site, web: list[Task]) -> None:
    third = site.hosts[2]
    site.apply([port(web[2], suspects=(web[0], web[1]))])
    assert fetch(site.outside, f"[{third.ipv6_address}]", 3) == {web[2].address: 3}
    site.apply([port()])
    assert refused(site.outside, f"[{third.ipv6_address}]")
    assert refused(third.nsenter, "[::1]")
    site.apply([port(web[1])])
    assert fetch(third.nsenter, "[::1]", 2) == {web[1].address: 2}
    site.apply([])
    assert refused(site.outside, f"[{third.ipv6_address}]")
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        relay_pid(third)  # it has ended with the last port


def test_host_mode(site: Site, web: list[Task], tmp_path: Path) -> None:
    third = site.hosts[2]
    task = third.attach(31, host_ports=(("tcp", 9000, 80),))
    serve_http(task, tmp_path)
    assert fetch(site.outside, f"[{third.ipv6_address}]", number=9000) == {task.address: 1}
    assert fetch(third.nsenter, "[::1]", number=9000) == {task.address: 1}
    assert refused(site.outside, f"[{site.hosts[0].ipv6_address}]", 9000)
    task.stop()
    third.ask("detach", task_id=task.task_id)
    assert refused(site.outside, f"[{third.ipv6_address}]", 9000)


def test_udp_is_answered_from_the_address_that_was_asked(site: Site, web: list[Task]) -> None:
    third, second_address = site.hosts[2], f"{IPV6_UNDERLAY}33"
    third.nsenter("ip", "address", "add", f"{second_address}/64", "dev", "eth0", "nodad")
    web[0].serve(sys.executable, "-c", UDP_SERVER, web[0].address)
    web[2].serve(sys.executable, "-c", UDP_ECHO)
    for task in web[::2]:
        task.wait_for("udp", 53)

    def answer(address: str) -> str:
        return site.outside(sys.executable, "-c", UDP_CLIENT6, address, str(PORT)).strip()

    for _ in range(2):  # it moves to another target and back
        site.apply([port(web[0], protocol="udp", target=53)])
        assert answer(third.ipv6_address) == answer(second_address) == web[0].address
        site.apply([port(web[2], protocol="udp", target=53)])
        assert answer(third.ipv6_address) == answer(second_address) == third.ingress_address


def test_it_outlives_a_killed_data_path_and_is_mended(site: Site, web: list[Task]) -> None:
    first = site.hosts[0]
    everyone = Counter({task.address: 1 for task in web})
    site.apply([port(*web)])
    pid = relay_pid(first)
    first.end()  # by SIGKILL
    assert fetch(site.outside, f"[{first.ipv6_address}]", 3) == everyone
    first.begin()
    site.apply([port(*web)])
    assert relay_pid(first) == pid
    assert first.ask("verify") == 0
    for number in (signal.SIGKILL, signal.SIGSTOP):
        os.kill(relay_pid(first), number)
        site.apply([port(web[0])])  # who hangs is not told, but killed
        first.ask("verify")
        assert fetch(site.outside, f"[{first.ipv6_address}]", 2) == {web[0].address: 2}, number
        site.apply([port(*web)])
        assert fetch(site.outside, f"[{first.ipv6_address}]", 3) == everyone, number
    assert first.ask("verify") == 0


def test_a_port_that_somebody_has_is_served_once_it_is_free(site: Site, web: list[Task]) -> None:
    third = site.hosts[2]
    argv = ["busybox", "httpd", "-f", "-p", f"[::]:{PORT}", "-h", str(site.directory)]
    (site.directory / "name").write_text("somebody\n")
    other = Task(task_id="", address="", host=third, netns=f"/run/netns/{third.netns}")
    other.serve(*argv)
    try:
        other.wait_for("tcp6", PORT)
        site.apply([port(*web)])
        assert fetch(third.nsenter, "[::1]") == {"somebody": 1}
        assert fetch(third.nsenter, "127.0.0.1", 3) == Counter({task.address: 1 for task in web})
    finally:
        other.stop()
    assert third.ask("verify") == 0, "the port is no damage"
    assert fetch(third.nsenter, "[::1]", 3) == Counter({task.address: 1 for task in web})


def test_tasks_speak_no_ipv6(site: Site, web: list[Task]) -> None:
    """Neither by a link of their own nor, having invented an address, to the host or another task."""
    first = site.hosts[0]
    site.apply([port(*web)])
    first.nsenter("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
    assert "inet6" not in web[0].nsenter("ip", "address")
    addresses = {web[0]: "fd00::1", web[1]: "fd00::2"}
    macs = {task: "02:42:" + bytes(map(int, task.address.split("."))).hex(":") for task in addresses}
    for task, other in ((web[0], web[1]), (web[1], web[0])):
        for link in ("gw0", "eth0"):
            task.nsenter("sysctl", "-q", "-w", f"net.ipv6.conf.{link}.disable_ipv6=0")
        task.nsenter("ip", "address", "add", f"{addresses[task]}/64", "dev", "eth0", "nodad")
        task.nsenter("ip", "neighbour", "add", addresses[other], "lladdr", macs[other], "dev", "eth0")
        task.nsenter("ip", "route", "replace", f"{IPV6_UNDERLAY}/64", "dev", "gw0")
    for target in ("[fd00::2]:80", f"[{first.ipv6_address}]:{PORT}"):
        unreached = web[0].nsenter("sh", "-c", f"curl -s -m 1 http://{target}/name; echo $?").strip()
        assert unreached in ("7", "28"), target
