"""SCTP by published ports and virtual addresses, on kernels without SCTP sockets: packets made by hand.

A client sends the first packet of an association (INIT) by a raw socket, a task answers it (INIT ACK) by one.
Both check that what arrives is whole: the checksum covers the ports, so a translation must renew it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.overlay_front import VIRTUAL, Front
from tests.integration.overlay_site import OUTSIDE, PORT, Site, Task, port

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]
TARGET = 36412
_FIRST_PORTS = itertools.count(5000, 100)
_PACKETS = """
import json, socket, struct, sys

def checksum(packet):
    crc = 0xFFFFFFFF
    for byte in packet:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)

def build(kind, source, target, tag, own_tag):
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, own_tag, 65535, 1, 1, 1)
    ports, tag = struct.pack("!HH", source, target), struct.pack("!I", tag)
    return ports + tag + checksum(ports + tag + bytes(4) + chunk) + chunk

def read(packet):
    client, sctp = socket.inet_ntoa(packet[12:16]), packet[(packet[0] & 15) * 4:]
    source, target = struct.unpack("!HH", sctp[:4])
    is_whole = checksum(sctp[:8] + bytes(4) + sctp[12:]) == sctp[8:12]
    return client, source, target, sctp[12], struct.unpack("!I", sctp[16:20])[0], is_whole

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
"""
# Answers with a tag of its own, and says who has come.
_TASK = (
    _PACKETS
    + """
own, tag = int(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
while True:
    client, source, target, kind, theirs, is_whole = read(raw.recv(2048))
    if kind == 1 and target == own and is_whole:
        raw.sendto(build(2, own, source, theirs, tag), (client, 0))
"""
)
# As many associations as are asked for, each from a port of its own: who answered, by tag.
_CLIENT = (
    _PACKETS
    + """
address, (port, first, times) = sys.argv[1], map(int, sys.argv[2:5])
raw.settimeout(3)
found = []
for own in range(first, first + times):
    raw.sendto(build(1, own, port, 0, own), (address, 0))
    while True:
        server, source, target, kind, tag, is_whole = read(raw.recv(2048))
        if kind == 2 and target == own:
            break
    assert (server, source, is_whole) == (address, port, True), (server, source, is_whole)
    found.append(tag)
print(json.dumps(found))
"""
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.up()
        yield site
    finally:
        site.down()


def serve(task: Task) -> None:
    tag = int(task.address.rsplit(".", 1)[1])
    task.serve(sys.executable, "-c", _TASK, str(TARGET), str(tag))
    task.nsenter("sh", "-c", "until grep -q ': 00000000:0084' /proc/net/raw; do :; done")


def associate(where: object, address: str, number: int, times: int) -> Counter[int]:
    """How often each task answered. Ports of clients are not used twice: flows keep their task."""
    first = next(_FIRST_PORTS)
    argv = (sys.executable, "-c", _CLIENT, address, *map(str, (number, first, times)))
    return Counter(json.loads(where(*argv)))


def test_a_published_port_of_sctp(site: Site) -> None:
    site.apply([])
    near, far = site.hosts[0].attach(11), site.hosts[1].attach(21)
    for task in (near, far):
        serve(task)
    site.apply([port(near, far, protocol="sctp", target=TARGET)])
    for host in site.hosts:
        assert associate(site.outside, host.address, PORT, 4) == {11: 2, 21: 2}, host.name
    kept = port(near, protocol="sctp", target=TARGET) | {"preserves_source": True}
    site.apply([kept])
    assert associate(site.outside, site.hosts[0].address, PORT, 2) == {11: 2}
    flows = site.hosts[0].nsenter("cat", "/proc/net/nf_conntrack").splitlines()
    assert any("sctp" in flow and f"dst={OUTSIDE} sport={TARGET}" in flow for flow in flows), (
        "by its own address"
    )


def test_a_host_port_of_sctp(site: Site) -> None:
    site.apply([])
    task = site.hosts[2].attach(31, host_ports=(("sctp", 9000, TARGET),))
    serve(task)
    assert associate(site.outside, site.hosts[2].address, 9000, 2) == {31: 2}


def test_a_virtual_address_takes_sctp(site: Site) -> None:
    front = Front(site)
    front.apply()
    h1, h2, h3 = site.hosts
    near, far, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h3, 13)
    for task in (near, far):
        serve(task)
    front.apply(near, far)
    assert associate(client.nsenter, VIRTUAL, TARGET, 4) == {11: 2, 12: 2}
    assert associate(near.nsenter, VIRTUAL, TARGET, 4) == {11: 2, 12: 2}, "itself too"
