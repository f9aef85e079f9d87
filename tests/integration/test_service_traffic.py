"""Virtual addresses and names between hosts that are network namespaces, proved by traffic."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.overlay_front import FRONT, IPV6_SUBNET, VIRTUAL, Front, ask, requests
from tests.integration.overlay_site import OUTSIDE, Host, Site, run, serve_http

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]


@pytest.fixture
def front(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Front]:
    """With IPv6 beside IPv4 where a test asks for it."""
    site = Site(tmp_path)
    try:
        site.up()
        made = Front(site, getattr(request, "param", ""))
        made.apply()
        yield made
    finally:
        site.down()


of_both_families = pytest.mark.parametrize("front", ["", IPV6_SUBNET], indirect=True, ids=["ipv4", "ipv6"])


def virtual(front: Front) -> str:
    """The virtual address of the family that the test is about."""
    return front.ipv6(VIRTUAL) or VIRTUAL


@of_both_families
def test_a_virtual_address_spreads_evenly_and_leads_back_to_the_asker(front: Front, tmp_path: Path) -> None:
    h1, h2, h3 = front.site.hosts
    near, far, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h3, 13)
    for task in (near, far):
        serve_http(task, tmp_path)
    front.apply(near, far)
    for asker in (client, near, far):
        assert requests(asker, 20, virtual(front)) == {near.address: 10, far.address: 10}


@of_both_families
def test_a_removed_task_gets_no_new_connection_and_keeps_its_old_ones(front: Front, tmp_path: Path) -> None:
    h1, h2, _ = front.site.hosts
    one, other, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h1, 13)
    for task in (one, other):
        serve_http(task, tmp_path)
        task.serve("busybox", "nc", "-ll", "-p", "81", "-e", "cat")
        task.wait_for("tcp", 81)
    front.apply(one)
    talk = f"import socket,sys\ns=socket.create_connection(('{virtual(front)}',81),5)\n" + (
        "s.sendall(b'a');s.recv(1);print('begun',flush=True);sys.stdin.readline()\n"
        "s.sendall(b'b');print(s.recv(1).decode(),flush=True)"
    )
    process = subprocess.Popen(
        ["nsenter", f"--net={client.netns}", sys.executable, "-c", talk],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "begun\n"
        front.apply(other)
        assert requests(client, 10, virtual(front)) == {other.address: 10}
        assert process.communicate("go\n", timeout=10)[0] == "b\n"
    finally:
        process.kill()
        process.wait()


# The same source port throughout, so that all of it is one flow to the kernel; a line on stdin asks again.
UDP_ASKER = """
import socket, sys
client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
client.connect((sys.argv[1], 53))
for _ in sys.stdin:
    try:
        client.send(b"?")
        print(client.recv(99).decode(), flush=True)
    except ConnectionRefusedError:
        print("refused", flush=True)
"""
UDP_NAME = """
import socket, sys
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 53))
while True:
    _, client = server.recvfrom(99)
    server.sendto(sys.argv[1].encode(), client)
"""


@of_both_families
def test_a_flow_of_datagrams_moves_off_a_task_that_left(front: Front) -> None:
    h1, h2, _ = front.site.hosts
    one, other, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h1, 13)
    for task in (one, other):
        task.serve(sys.executable, "-c", UDP_NAME, task.address)
        task.wait_for("udp", 53)
    asker = subprocess.Popen(
        ["nsenter", f"--net={client.netns}", sys.executable, "-c", UDP_ASKER, virtual(front)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def answered() -> str:
        asker.stdin.write("\n")
        asker.stdin.flush()
        return asker.stdout.readline().strip()

    try:
        front.apply()
        assert answered() == "refused"
        for backend in (one, other, one):
            front.apply(backend)
            assert [answered(), answered()] == [backend.address] * 2
    finally:
        asker.communicate(timeout=10)


def test_names_stand_for_what_serves(front: Front) -> None:
    h1, h2, _ = front.site.hosts
    one, other, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h1, 13)
    front.apply(one, other)
    both = [one.address, other.address]
    expected = {
        "web": [VIRTUAL],
        "WEB": [VIRTUAL],
        "www": [VIRTUAL],
        "web.front": [VIRTUAL],
        "tasks.web": both,
        f"web.1.{one.task_id}": [one.address],
        other.task_id[:12]: both,  # the test's ids are alike there
    }
    for way in ((), ("tcp",)):
        assert {name: ask(client, name, "A", *way) for name in expected} == {
            name: ("NOERROR", sorted(found)) for name, found in expected.items()
        }
    assert ask(client, "web", "AAAA") == ("NOERROR", [])
    assert ask(client, "11.1.0.10.in-addr.arpa", "PTR") == ("NOERROR", [f"web.1.{one.task_id}.front"])
    assert ask(client, "99.1.0.10.in-addr.arpa", "PTR") == ("NXDOMAIN", [])
    front.apply(other, virtual_ip="")
    assert ask(client, "web") == ("NOERROR", [other.address])
    front.apply()
    assert ask(client, "web") == ("NOERROR", [])


def test_other_names_are_asked_of_the_nameservers_but_not_from_internal_networks(front: Front) -> None:
    """The site's outside plays a name server that gives every question back as an answer without records."""
    h1 = front.site.hosts[0]
    back = (
        f"import socket\nserver = socket.socket(type=socket.SOCK_DGRAM)\nserver.bind(('{OUTSIDE}', 53))\n"
        "print('ready', flush=True)\n"
        "while True:\n data, client = server.recvfrom(999)\n"
        " server.sendto(data[:2] + bytes([data[2] | 128, 5]) + data[4:], client)\n"
    )
    outside = f"--net=/run/netns/{front.site.prefix}hub"
    upstream = subprocess.Popen(
        ["nsenter", outside, sys.executable, "-c", back], stdout=subprocess.PIPE, text=True
    )
    try:
        assert upstream.stdout.readline() == "ready\n"
        client = front.attach(h1, 11)
        front.apply()
        assert ask(client, "example.com") == ("REFUSED", [])
        front.internal = True
        isolated = front.attach(h1, 12)
        front.apply()
        assert ask(isolated, "example.com") == ("NXDOMAIN", [])
    finally:
        upstream.kill()
        upstream.communicate()


def signal_names(host: Host, number: signal.Signals) -> None:
    """Send a signal to the host's name server, and wait for its end if it is SIGKILL."""
    with contextlib.suppress(ConnectionResetError), socket.socket(socket.AF_UNIX) as names:
        names.connect(str(host.directory / "names.sock"))
        pid = int.from_bytes(names.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        os.kill(pid, number)
        while number is signal.SIGKILL and names.recv(4096):
            pass


def test_a_name_server_that_hangs_is_replaced(front: Front) -> None:
    h1 = front.site.hosts[0]
    client = front.attach(h1, 11)
    front.apply(client)
    signal_names(h1, signal.SIGSTOP)
    front.apply()  # is not told: nobody answers
    assert h1.ask("verify") > 0
    assert ask(client, "web") == ("NOERROR", [])


def test_a_long_answer_is_cut_over_udp_and_whole_over_tcp(front: Front) -> None:
    client = front.attach(front.site.hosts[0], 11)
    many = [{"address": f"10.0.1.{n}", "names": ()} for n in range(50, 150)]
    front.apply(virtual_ip="", backends=many)
    assert 20 < len(ask(client, "web")[1]) < 40
    assert ask(client, "web", "A", "tcp") == ("NOERROR", sorted(each["address"] for each in many))


def test_names_and_addresses_survive_a_killed_data_path_and_are_mended(front: Front, tmp_path: Path) -> None:
    h1 = front.site.hosts[0]
    one, client = front.attach(h1, 11), front.attach(h1, 12)
    serve_http(one, tmp_path)
    front.apply(one)
    h1.end()  # by SIGKILL
    assert ask(client, "web") == ("NOERROR", [VIRTUAL])
    assert requests(client, 3) == {one.address: 3}
    h1.begin()
    assert ask(client, "web") == ("NOERROR", [VIRTUAL])
    front.apply(one)
    overlay = f"--net={h1.directory}/netns/ov-{FRONT}"
    run("nsenter", overlay, "nft", "flush", "ruleset")
    run("nsenter", overlay, "ip", "address", "flush", "dev", "br0")
    signal_names(h1, signal.SIGKILL)
    assert h1.ask("verify") > 0
    assert ask(client, "web") == ("NOERROR", [VIRTUAL])
    assert requests(client, 3) == {one.address: 3}
    assert h1.ask("verify") == 0
