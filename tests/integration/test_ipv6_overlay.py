"""IPv6 inside of overlays, between hosts that are network namespaces: names, guards, repair.

What both families share (even spread, old connections, flows of datagrams) is in `test_service_traffic.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from swarm.overlay.plan import mac_of
from tests.integration.overlay_front import FRONT, IPV6_SUBNET, VIRTUAL, Front, ask, requests
from tests.integration.overlay_site import TIMEOUT, Host, Site, Task, run, serve_http

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]
LISTENER = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 9999))
server.settimeout(10)
print("ready", flush=True)
print(server.recv(99).decode(), flush=True)
"""
# Sends frames made up by hand, then an honest datagram: when that arrives, they have been looked at.
FORGER = """
import socket, sys
honest, *frames = sys.argv[1:]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
for frame in frames:
    raw.send(bytes.fromhex(frame))
socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"honest", (honest, 9999))
"""
UDP, ICMP = 17, 58


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    site = Site(tmp_path)
    try:
        site.up()
        made = Front(site, IPV6_SUBNET)
        made.apply()
        yield made
    finally:
        site.down()


def frame(*, mac: str, to_mac: str, source: str, to: str, protocol: int, body: bytes) -> str:
    """A whole Ethernet frame with an IPv6 packet, in hexadecimal digits."""
    ends = IPv6Address(source).packed + IPv6Address(to).packed
    pseudo = ends + len(body).to_bytes(4, "big") + bytes([0, 0, 0, protocol])
    at = 6 if protocol == UDP else 2
    body = body[:at] + checksum(pseudo + body) + body[at + 2 :]
    packet = bytes.fromhex("60000000") + len(body).to_bytes(2, "big") + bytes([protocol, 255]) + ends + body
    return to_mac.replace(":", "") + mac.replace(":", "") + "86dd" + packet.hex()


def checksum(data: bytes) -> bytes:
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def datagram(*, mac: str, source: str, to_mac: str, to: str) -> str:
    text = b"forged"
    body = bytes.fromhex("270f270f") + (8 + len(text)).to_bytes(2, "big") + b"\0\0" + text
    return frame(mac=mac, to_mac=to_mac, source=source, to=to, protocol=UDP, body=body)


def advertisement(*, mac: str, source: str, claimed: str, to_mac: str, to: str) -> str:
    """`claimed` is at `mac`, says this neighbour advertisement, and overrides what was known."""
    flags = bytes.fromhex("88000000") + bytes.fromhex("60000000")
    option = bytes([2, 1]) + bytes.fromhex(mac.replace(":", ""))
    body = flags + IPv6Address(claimed).packed + option
    return frame(mac=mac, to_mac=to_mac, source=source, to=to, protocol=ICMP, body=body)


def router(*, mac: str, source: str) -> str:
    """A router advertisement with a prefix that its hearers are to make addresses of."""
    prefix = bytes.fromhex("030440c0 00015180 00015180 00000000") + IPv6Address("fd00:bad::").packed
    body = bytes.fromhex("86000000 40000708 00000000 00000000") + prefix
    to = {"to_mac": "33:33:00:00:00:01", "to": "ff02::1"}
    return frame(mac=mac, source=source, protocol=ICMP, body=body, **to)


def arrives_first(front: Front, attacker: Task, target: Task, *frames: str) -> str:
    server = subprocess.Popen(
        ["nsenter", f"--net={target.netns}", sys.executable, "-c", LISTENER],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        server.stdout.readline()
        attacker.nsenter(sys.executable, "-c", FORGER, front.ipv6(target.address), *frames)
        return server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate(timeout=TIMEOUT)


def drop_guard(host: Host) -> None:
    overlay = f"--net={host.directory}/netns/ov-{FRONT}"
    host.nsenter("nsenter", overlay, "nft", "delete", "table", "bridge", "swarm")


def reverse(address: str) -> str:
    return ".".join(reversed(IPv6Address(address).exploded.replace(":", ""))) + ".ip6.arpa"


def test_names_give_addresses_of_both_families(front: Front) -> None:
    h1, h2, _ = front.site.hosts
    one, other, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h1, 13)
    front.apply(one, other)
    both = [front.ipv6(task.address) for task in (one, other)]
    for way in ((), ("tcp",)):
        assert ask(client, "web", "A", *way) == ("NOERROR", [VIRTUAL])
        assert ask(client, "web", "AAAA", *way) == ("NOERROR", [front.ipv6(VIRTUAL)])
        assert ask(client, "tasks.web.front", "AAAA", *way) == ("NOERROR", both)
        assert ask(client, reverse(both[0]), "PTR", *way) == ("NOERROR", [f"web.1.{one.task_id}.front"])
        assert ask(client, reverse(front.ipv6("10.0.1.77")), "PTR", *way) == ("NXDOMAIN", [])
    front.apply()
    assert ask(client, "web", "AAAA") == ("NOERROR", [])
    front.apply(one, other, virtual_ip="")
    assert ask(client, "web", "AAAA") == ("NOERROR", both)


def test_a_task_has_the_addresses_it_was_given_and_no_others(front: Front) -> None:
    task = front.attach(front.site.hosts[0], 11)
    shown = task.nsenter("ip", "-6", "-o", "address").splitlines()
    found = [words[3] for words in map(str.split, shown)]
    assert found == ["::1/128", f"{front.ipv6(task.address)}/64"]
    assert "tentative" not in "".join(shown)
    assert "default" not in task.nsenter("ip", "-6", "route")


def test_nobody_speaks_under_anothers_address(front: Front) -> None:
    first, second = front.site.hosts[:2]
    attacker, neighbour, victim = front.attach(first, 11), front.attach(first, 12), front.attach(second, 21)
    front.apply()
    own, other = mac_of(attacker.address), mac_of(neighbour.address)
    for target in (neighbour, victim):
        to = {"to_mac": mac_of(target.address), "to": front.ipv6(target.address)}
        forged = [
            datagram(mac=own, source=front.ipv6("10.0.1.99"), **to),
            datagram(mac=other, source=front.ipv6(neighbour.address), **to),
            datagram(mac=own, source="fe80::1", **to),
            datagram(mac=own, source="fd00:99::1", **to),
        ]
        assert arrives_first(front, attacker, target, *forged) == "honest"
        honest = datagram(mac=own, source=front.ipv6(attacker.address), **to)
        assert arrives_first(front, attacker, target, honest) == "forged", "the frames are well-formed"
        drop_guard(first)
        assert arrives_first(front, attacker, target, forged[0]) == "forged", "the control"
        assert first.ask("verify") > 0


def test_neighbours_and_routers_tell_no_lies(front: Front) -> None:
    first = front.site.hosts[0]
    attacker, neighbour, victim = (front.attach(first, number) for number in (11, 12, 13))
    front.apply()
    stolen, own = front.ipv6(neighbour.address), mac_of(attacker.address)
    to = {"to_mac": mac_of(victim.address), "to": front.ipv6(victim.address)}
    lie = advertisement(mac=own, source=front.ipv6(attacker.address), claimed=stolen, **to)
    offer = router(mac=own, source="fe80::1")
    victim.nsenter("sysctl", "-q", "-w", "net.ipv6.conf.eth0.accept_ra=1")
    victim.nsenter("sysctl", "-q", "-w", "net.ipv6.conf.eth0.autoconf=1")

    def believed() -> tuple[str, bool]:
        victim.nsenter("busybox", "ping6", "-c", "1", "-W", "2", stolen)
        assert arrives_first(front, attacker, victim, lie, offer) == "honest"
        entry = victim.nsenter("ip", "neigh", "show", stolen).split("lladdr ")[1].split()[0]
        return entry, "fd00:bad::" in victim.nsenter("ip", "-6", "route")

    assert believed() == (mac_of(neighbour.address), False)
    drop_guard(first)
    assert believed() == (own, True), "the control"


def test_what_others_break_is_mended(front: Front, tmp_path: Path) -> None:
    h1, h2, _ = front.site.hosts
    one, client = front.attach(h2, 11), front.attach(h1, 12)
    serve_http(one, tmp_path)
    front.apply(one)
    address = front.ipv6(VIRTUAL)
    assert requests(client, 3, address) == {one.address: 3}
    overlay = ("nsenter", f"--net={h1.directory}/netns/ov-{FRONT}")
    for damage in (
        ("ip", "-6", "address", "flush", "dev", "br0"),
        ("ip", "-6", "neighbour", "flush", "dev", "vxlan0", "nud", "permanent"),
        ("ip", "-6", "neighbour", "flush", "dev", "br0", "nud", "permanent"),
        ("nft", "delete", "element", "inet", "swarm", "ipv6-services", f"{{ {address} }}"),
        ("ip", "link", "delete", "br0"),
    ):
        run(*overlay, *damage)
        assert h1.ask("verify") > 0, damage
        assert requests(client, 3, address) == {one.address: 3}, damage
        assert h1.ask("verify") == 0, damage


def test_it_goes_on_after_a_kill(front: Front, tmp_path: Path) -> None:
    h1, h2, _ = front.site.hosts
    one, client = front.attach(h2, 11), front.attach(h1, 12)
    serve_http(one, tmp_path)
    front.apply(one)
    h1.end()  # by SIGKILL
    assert requests(client, 3, front.ipv6(VIRTUAL)) == {one.address: 3}
    h1.begin()
    front.apply(one)
    assert h1.ask("verify") == 0
    assert requests(client, 3, front.ipv6(VIRTUAL)) == {one.address: 3}
    assert ask(client, "web", "AAAA") == ("NOERROR", [front.ipv6(VIRTUAL)])
