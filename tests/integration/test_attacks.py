"""A task that may send any frame it likes gets nowhere under a name that is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.overlay.plan import mac_of
from tests.integration.overlay_site import INGRESS, OUTSIDE, TIMEOUT, UNDERLAY, Host, Site, Task

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

LISTENER = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 9999))
server.settimeout(10)
print("ready", flush=True)
print(server.recv(99).decode(), flush=True)
"""
# Sends frames made up by hand, then an honest datagram: what arrives first tells whether they passed. All of
# it from one processor: each has a queue of its own, and what was sent first would not always be first.
FORGER = """
import os, socket, sys
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
link, honest, *frames = sys.argv[1:]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((link, 0))
for frame in frames:
    raw.send(bytes.fromhex(frame))
socket.socket(type=socket.SOCK_DGRAM).sendto(b"honest", (honest, 9999))
"""


def packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def checksum(header: bytes) -> bytes:
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def datagram(*, mac: str, source: str, to_mac: str, to: str) -> str:
    """A whole Ethernet frame with a UDP datagram that says `forged`, in hexadecimal digits."""
    text = b"forged"
    udp = bytes.fromhex("270f270f") + (8 + len(text)).to_bytes(2, "big") + b"\0\0" + text
    begin = bytes.fromhex("4500") + (20 + len(udp)).to_bytes(2, "big") + bytes.fromhex("000000004011")
    addresses = packed(source) + packed(to)
    header = begin + checksum(begin + b"\0\0" + addresses) + addresses
    return to_mac.replace(":", "") + mac.replace(":", "") + "0800" + (header + udp).hex()


def arp_answer(*, mac: str, claimed: str, to: Task) -> str:
    """`claimed` is at `mac`, says this frame to a task."""
    ends = mac.replace(":", "") + packed(claimed).hex() + mac_of(to.address).replace(":", "")
    return (
        mac_of(to.address).replace(":", "")
        + mac.replace(":", "")
        + "08060001080006040002"
        + ends
        + (packed(to.address).hex())
    )


def arrives_first(listen: list[str], attacker: Task, link: str, honest: str, *frames: str) -> str:
    server = subprocess.Popen([*listen, sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True)
    try:
        server.stdout.readline()
        attacker.nsenter(sys.executable, "-c", FORGER, link, honest, *frames)
        return server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate(timeout=TIMEOUT)


def drop_guard(host: Host, network: str = "") -> None:
    inside = ["nsenter", f"--net={host.directory}/netns/ov-{network}"] if network else []
    host.nsenter(*inside, "nft", "delete", "table", "bridge", "swarm")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.up()
        site.apply([])
        yield site
    finally:
        site.down()


def test_nobody_speaks_under_anothers_address_on_an_overlay(site: Site) -> None:
    first, second = site.hosts[:2]
    attacker, neighbour, victim = first.attach(11), first.attach(12), second.attach(21)
    site.apply([])
    own, other = mac_of(attacker.address), mac_of(neighbour.address)
    for target in (neighbour, victim):
        listen = ["nsenter", f"--net={target.netns}"]
        to = {"to_mac": mac_of(target.address), "to": target.address}
        claimed = "10.0.0.99"
        frames = [
            datagram(mac=own, source=claimed, **to),
            datagram(mac=other, source=neighbour.address, **to),
            datagram(mac=other, source=attacker.address, **to),
        ]
        assert arrives_first(listen, attacker, "eth0", target.address, *frames) == "honest"
        honest_frame = datagram(mac=own, source=attacker.address, **to)
        assert arrives_first(listen, attacker, "eth0", target.address, honest_frame) == "forged"
        drop_guard(first, INGRESS)
        assert arrives_first(listen, attacker, "eth0", target.address, frames[0]) == "forged", "the control"
        assert first.ask("verify") > 0
        assert arrives_first(listen, attacker, "eth0", target.address, *frames) == "honest"


def test_arp_tells_no_lies(site: Site) -> None:
    first = site.hosts[0]
    attacker, neighbour, victim = first.attach(11), first.attach(12), first.attach(13)
    victim.nsenter("busybox", "ping", "-c", "1", "-W", "2", neighbour.address)
    lie = arp_answer(mac=mac_of(attacker.address), claimed=neighbour.address, to=victim)
    listen = ["nsenter", f"--net={victim.netns}"]

    def believed() -> str:
        assert arrives_first(listen, attacker, "eth0", victim.address, lie) == "honest"
        return victim.nsenter("ip", "neigh", "show", neighbour.address).split("lladdr ")[1].split()[0]

    assert believed() == mac_of(neighbour.address)
    drop_guard(first, INGRESS)
    # An entry that was just confirmed is locked for a second against any answer.
    victim.nsenter("sysctl", "-q", "-w", "net.ipv4.neigh.eth0.locktime=0")
    assert believed() == mac_of(attacker.address), "the control"


def test_nobody_leaves_the_host_under_an_invented_address(site: Site) -> None:
    first = site.hosts[0]
    attacker = first.attach(11)
    hub = ["nsenter", f"--net=/run/netns/{site.prefix}hub"]
    gateway = attacker.gateway_address.rsplit(".", 1)[0] + ".1"
    frame = datagram(
        mac=mac_of(attacker.gateway_address), source=f"{UNDERLAY}.99", to_mac=mac_of(gateway), to=OUTSIDE
    )
    assert arrives_first(hub, attacker, "gw0", OUTSIDE, frame) == "honest"
    drop_guard(first)
    assert arrives_first(hub, attacker, "gw0", OUTSIDE, frame) == "forged", "the control"


def test_tasks_do_not_reach_each_other_by_the_gateway(site: Site) -> None:
    """Neither by the neighbour's own MAC, nor by everybody's."""
    first = site.hosts[0]
    attacker, victim = first.attach(11), first.attach(12)
    listen = ["nsenter", f"--net={victim.netns}"]
    own = {"mac": mac_of(attacker.gateway_address), "source": attacker.gateway_address}
    to = {"to": victim.gateway_address}
    frames = [
        datagram(**own, **to, to_mac=mac) for mac in (mac_of(victim.gateway_address), "ff:ff:ff:ff:ff:ff")
    ]
    assert arrives_first(listen, attacker, "gw0", victim.address, *frames) == "honest"
    gateway = mac_of(attacker.gateway_address.rsplit(".", 1)[0] + ".1")
    frame = datagram(**own, **to, to_mac=gateway)
    assert arrives_first(listen, attacker, "gw0", victim.address, frame) == "honest", "routed neither"
    first.nsenter(
        "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=0"
    )  # else the forward chain drops it
    assert arrives_first(listen, attacker, "gw0", victim.address, *frames) == "honest"
    drop_guard(first)
    assert arrives_first(listen, attacker, "gw0", victim.address, frames[0]) == "forged", "the control"
    assert first.ask("verify") > 0
    assert arrives_first(listen, attacker, "gw0", victim.address, *frames) == "honest"


def test_a_task_reaches_no_hosts_cluster_ports(site: Site) -> None:
    first, second = site.hosts[:2]
    task = first.attach(11)
    ports = (2377, 2378, 2381, 2382, 8099)
    servers = []
    try:
        for host in (first, second):
            for number in ports:
                argv = [
                    "nsenter",
                    f"--net=/run/netns/{host.netns}",
                    "busybox",
                    "httpd",
                    "-f",
                    "-p",
                    str(number),
                ]
                servers.append(subprocess.Popen(argv))
        for host in (first, second):
            for number in ports:
                url = f"http://{host.address}:{number}/"
                site.outside("sh", "-c", f"until curl -s -o /dev/null {url}; do :; done")
                is_open = number == 8099
                patience = 5 if is_open else 1
                ended = task.nsenter("sh", "-c", f"curl -s -o /dev/null -m {patience} {url}; echo $?").strip()
                assert ended == ("0" if is_open else "28"), url
    finally:
        for server in servers:
            server.kill()
            server.wait(TIMEOUT)
