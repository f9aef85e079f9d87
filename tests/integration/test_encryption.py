"""Encrypted networks between hosts, watched on the wire between them: what is seen there, and what is not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarm.overlay.encryption import PORTS, slot_of
from swarm.overlay.plan import mac_of
from tests.integration.overlay_site import INGRESS, TIMEOUT, Host, Site, Task, serve_http
from tests.integration.test_attacks import LISTENER, checksum, datagram, packed

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

MARKER = "the-secret-that-must-not-be-seen"
VNI = 4096
# Reads every frame on the wire until it is told to stop; then says what it saw.
WATCHER = """
import collections, json, select, signal, socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
wire.bind(("h1", 0))
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
print("ready", flush=True)
seen, ports = 0, collections.Counter()
while True:
    ready, _, _ = select.select([wire], [], [], 0.05)
    if ready:
        frame = wire.recv(65535)
        seen += sys.argv[1].encode() in frame
        if frame[12:14] == b"\\x08\\x00" and frame[23] == 17:
            ports[int.from_bytes(frame[36:38], "big")] += 1
    elif ends:
        break
print(json.dumps({"seen": seen, "ports": ports}), flush=True)
"""
UDP_ECHO = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
server.bind(("0.0.0.0", 53))
while True:
    server.sendto(*server.recvfrom(99))
"""
# A datagram each 5 ms until it is told to stop; then says how many were sent and how many came back, once all
# have, or ten seconds later.
UDP_STREAM = """
import json, select, signal, socket, sys, time
client = socket.socket(type=socket.SOCK_DGRAM)
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
client.connect((sys.argv[1], 53))
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
print("ready", flush=True)
sent, back = 0, set()
while not ends or (len(back) < sent and time.monotonic() < ends_at):
    if not ends:
        client.send(str(sent).encode())
        sent += 1
        ends_at = time.monotonic() + 10
    until = time.monotonic() + 0.005
    while select.select([client], [], [], max(0, until - time.monotonic()))[0]:
        back.add(client.recv(99))
print(json.dumps({"sent": sent, "back": len(back)}), flush=True)
"""
# Puts frames on the wire between the hosts.
INJECTOR = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("br0", 0))
for frame in sys.argv[1:]:
    raw.send(bytes.fromhex(frame))
"""
HONEST = """
import socket, sys
socket.socket(type=socket.SOCK_DGRAM).sendto(b"honest", (sys.argv[1], 9999))
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.up()
        yield site
    finally:
        site.down()


class Keys:
    """What a manager does: it tells everybody of everybody's keys, and of the generation."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.terms: dict = {"generation": 1}

    def tell(self, **terms: object) -> None:
        self.terms |= terms
        self.apply()  # each makes its keys
        self.apply()  # each knows the others' keys
        for host in self.site.hosts:
            for key in host.ask("keys"):  # wireguard-go looks once a second whether its device is up
                port = f":{PORTS[slot_of(key['generation'])]:04X} "
                host.nsenter("sh", "-c", f"until grep -q '{port}' /proc/net/udp; do :; done")

    def apply(self) -> None:
        self.site.apply([], encrypted=True, encryption=self.terms, peers=self.peers())

    def peers(self) -> list[dict]:
        return [{"host": host.address, "keys": host.ask("keys")} for host in self.site.hosts]


@contextmanager
def program(inside: list[str], source: str, *arguments: str) -> Iterator[dict]:
    """What the program said at the end is in the dictionary after the block."""
    argv = [*inside, sys.executable, "-c", source, *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    said: dict = {}
    try:
        process.stdout.readline()
        yield said
        process.send_signal(signal.SIGTERM)
        said |= json.loads(process.communicate(timeout=TIMEOUT)[0])
    finally:
        process.kill()
        process.communicate()


def hub(site: Site) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{site.prefix}hub"]


def fetch(task: Task, server: Task, seconds: int = 15) -> str:
    """The marker, or nothing. A handshake that is lost is repeated after five seconds."""
    url = f"http://{server.address}/{MARKER}"
    return task.nsenter("curl", "-s", "-m", str(seconds), "--retry-connrefused", url, check=False).strip()


def in_tunnels(host: Host, *argv: str) -> str:
    return host.nsenter("nsenter", f"--net={host.directory}/wireguard/wg", *argv)


def pair(site: Site, directory: Path) -> tuple[Task, Task]:
    """A client on h1, a server of the marker on h2."""
    client, server = site.hosts[0].attach(11), site.hosts[1].attach(21)
    serve_http(server, directory)
    (directory / server.task_id / MARKER).write_text(MARKER)
    return client, server


def test_nothing_is_seen_on_the_wire(site: Site, tmp_path: Path) -> None:
    keys = Keys(site)
    keys.tell()
    client, server = pair(site, tmp_path)
    keys.tell()
    with program(hub(site), WATCHER, MARKER) as watched:
        assert fetch(client, server) == MARKER
        assert fetch(client, server) == MARKER
    assert watched["seen"] == 0
    assert set(watched["ports"]) == {"2384"}, "nothing but WireGuard's packets of the first generation"
    assert watched["ports"]["2384"] > 10


def test_the_watcher_sees_what_is_not_encrypted(site: Site, tmp_path: Path) -> None:
    """The control of every test here that sees nothing."""
    site.apply([])
    client, server = pair(site, tmp_path)
    site.apply([])
    with program(hub(site), WATCHER, MARKER) as watched:
        assert fetch(client, server) == MARKER
    assert watched["seen"] > 0
    assert set(watched["ports"]) == {"4789"}


def test_keys_are_rotated_without_loss(site: Site) -> None:
    keys = Keys(site)
    keys.tell()
    client, server = site.hosts[0].attach(11), site.hosts[1].attach(21)
    keys.tell()
    server.serve(sys.executable, "-c", UDP_ECHO)
    server.wait_for("udp", 53)
    client.nsenter("busybox", "ping", "-c", "1", "-W", "5", server.address)
    used = [keys.peers()]
    with program(["nsenter", f"--net={client.netns}"], UDP_STREAM, server.address) as stream:
        for generation in (2, 3):
            keys.tell(is_preparing=True)
            keys.tell(is_preparing=False, generation=generation)
            used.append(keys.peers())
    assert stream["sent"] > 50
    assert stream["back"] == stream["sent"]
    newest = [{peer["keys"][-1]["public_key"] for peer in peers} for peers in used]
    assert not newest[0] & newest[1], "every host has another key"
    assert not newest[1] & newest[2], "every host has another key"
    assert [peer["keys"][-1]["generation"] for peer in used[2]] == [3, 3, 3]


def test_without_wireguard_nothing_leaves(site: Site, tmp_path: Path) -> None:
    keys = Keys(site)
    keys.tell()
    client, server = pair(site, tmp_path)
    keys.tell()
    first = site.hosts[0]
    device = f"sww1{packed(first.address).hex()}"
    breakages = (
        ("ip", "link", "del", device),
        ("ip", "link", "set", device, "down"),
        ("ip", "route", "flush", "table", "main"),
        ("wg", "set", device, "private-key", "/dev/null"),
    )
    for breakage in breakages:
        assert fetch(client, server) == MARKER, breakage
        in_tunnels(first, *breakage)
        first.nsenter("nft", "flush", "ruleset")
        with program(hub(site), WATCHER, MARKER) as watched:
            assert fetch(client, server, seconds=1) == "", breakage
        assert watched["seen"] == 0
        assert "4789" not in watched["ports"], breakage
        assert "4790" not in watched["ports"], breakage
        assert first.ask("verify") > 0, breakage
        assert fetch(client, server) == MARKER, breakage
        assert first.ask("verify") == 0, breakage


def test_a_restart_goes_on_and_leaving_removes_all(site: Site, tmp_path: Path) -> None:
    keys = Keys(site)
    keys.tell()
    client, server = pair(site, tmp_path)
    keys.tell()
    first = site.hosts[0]
    before = first.ask("keys")
    first.end()
    assert fetch(client, server) == MARKER
    first.begin()
    assert fetch(client, server) == MARKER
    keys.apply()
    assert first.ask("keys") == before
    assert first.ask("verify") == 0
    assert fetch(client, server) == MARKER
    first.ask("detach", task_id=client.task_id)
    first.ask("close", remove=True)
    assert list(first.directory.glob("*/*")) == []
    assert str(first.directory) not in Path("/proc/self/mounts").read_text()
    assert not Path(f"/var/run/wireguard/sww1{packed(first.address).hex()}.sock").exists()


def vxlan(inner: str, *, source: Host, to: Host, port: int) -> str:
    """A frame inside a tunnel packet, as if a host had sent it in the clear."""
    payload = bytes.fromhex("08000000") + VNI.to_bytes(3, "big") + b"\0" + bytes.fromhex(inner)
    udp = (
        (40000).to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + b"\0\0"
    )
    begin = bytes.fromhex("4500") + (28 + len(payload)).to_bytes(2, "big") + bytes.fromhex("000000004011")
    addresses = packed(source.address) + packed(to.address)
    header = begin + checksum(begin + b"\0\0" + addresses) + addresses
    mac = json.loads(to.nsenter("ip", "-j", "link", "show", "eth0"))[0]["address"]
    return mac.replace(":", "") + "020000000001" + "0800" + (header + udp + payload).hex()


def test_what_is_injected_in_the_clear_does_not_arrive(site: Site) -> None:
    keys = Keys(site)
    keys.tell()
    honest, victim = site.hosts[0].attach(11), site.hosts[1].attach(21)
    inner = datagram(
        mac=mac_of(honest.address), source=honest.address, to_mac=mac_of(victim.address), to=victim.address
    )
    frames = [vxlan(inner, source=honest.host, to=victim.host, port=port) for port in (4789, 4790)]

    def arrives() -> str:
        listen = ["nsenter", f"--net={victim.netns}", sys.executable, "-c", LISTENER]
        server = subprocess.Popen(listen, stdout=subprocess.PIPE, text=True)
        try:
            server.stdout.readline()
            site.outside(sys.executable, "-c", INJECTOR, *frames)
            honest.nsenter(sys.executable, "-c", HONEST, victim.address)
            return server.stdout.readline().strip()
        finally:
            server.kill()
            server.communicate(timeout=TIMEOUT)

    keys.tell()
    assert arrives() == "honest"
    site.apply([])
    assert arrives() == "forged", "the control: a network that is not encrypted"


def test_a_host_that_cannot_encrypt_refuses(site: Site, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("nft", "nsenter"):
        (programs / name).symlink_to(shutil.which(name))
    third = site.hosts[2]
    third.end()
    third.begin(PATH=str(programs))
    Keys(site).tell()
    answer = third.ask_raw("attach", task_id="t", attachments=[[INGRESS, "10.0.0.31/24"]])
    assert answer["error"] == (
        "network ingress is encrypted, and this host cannot encrypt: "
        "wg is not installed: install the wireguard-tools package"
    )
    assert not (third.directory / f"netns/ov-{INGRESS}").exists()
