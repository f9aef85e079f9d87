"""Virtual addresses and names between hosts that are network namespaces, proved by traffic."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.overlay_site import OUTSIDE, ROOT, Host, Site, Task, fetch, run, serve_http

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]
FRONT = "front00000000000000000000"[:25]
VIRTUAL = "10.0.1.200"
SUBNET = "10.0.1.0/24"


class Front:
    """One overlay network on all hosts of a site, with the service `web` on it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tasks: list[Task] = []
        self.internal = False

    def attach(self, host: Host, number: int) -> Task:
        task = Task(task_id=f"front{number:020d}", address=f"10.0.1.{number}", host=host)
        link = host.ask(
            "attach",
            task_id=task.task_id,
            attachments=[[FRONT, f"{task.address}/24"]],
            names_on=[FRONT],
            nameservers=[] if self.internal else [OUTSIDE],
        )
        task.netns, task.gateway_address = link["netns"], link["address"]
        host.tasks.append(task)
        self.tasks.append(task)
        return task

    def apply(self, *backends: Task, suspects: tuple[Task, ...] = (), **more: object) -> None:
        for host in self.site.hosts:
            host.ask(
                "apply",
                networks=[self.network(host)],
                ports=[],
                services=[self.service(*backends, suspects=suspects, **more)],
            )

    def network(self, host: Host) -> dict:
        endpoints = [{"address": t.address, "host": t.host.address} for t in self.tasks]
        return {
            "id": FRONT,
            "name": "front",
            "vni": 4097,
            "subnets": (SUBNET,),
            "internal": self.internal,
            "endpoints": endpoints,
        }

    def service(self, *backends: Task, suspects: tuple[Task, ...] = (), **more: object) -> dict:
        named = [
            {
                "address": t.address,
                "suspect": t in suspects,
                "names": (f"web.{n}.{t.task_id}", t.task_id[:12]),
            }
            for n, t in enumerate((*backends, *suspects), start=1)
        ]
        service = {
            "network_id": FRONT,
            "service_id": "webservice",
            "name": "web",
            "virtual_ip": VIRTUAL,
            "aliases": ("www",),
        }
        return service | {"backends": named} | more


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    site = Site(tmp_path)
    try:
        site.up()
        made = Front(site)
        made.apply()
        yield made
    finally:
        site.down()


def ask(task: Task, name: str, kind: str = "A", *more: str) -> tuple[str, list[str]]:
    script = str(ROOT / "tests/integration/dns_client.py")
    heard = json.loads(task.nsenter(sys.executable, script, "127.0.0.11", name, kind, *more))
    return heard["code"], sorted(heard["records"])


def requests(task: Task, times: int) -> Counter[str]:
    return fetch(task.nsenter, VIRTUAL, times, number=80)


def test_a_virtual_address_spreads_evenly_and_leads_back_to_the_asker(front: Front, tmp_path: Path) -> None:
    h1, h2, h3 = front.site.hosts
    near, far, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h3, 13)
    for task in (near, far):
        serve_http(task, tmp_path)
    front.apply(near, far)
    for asker in (client, near, far):
        assert requests(asker, 20) == {near.address: 10, far.address: 10}


def test_a_removed_task_gets_no_new_connection_and_keeps_its_old_ones(front: Front, tmp_path: Path) -> None:
    h1, h2, _ = front.site.hosts
    one, other, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h1, 13)
    for task in (one, other):
        serve_http(task, tmp_path)
        task.serve("busybox", "nc", "-ll", "-p", "81", "-e", "cat")
        task.wait_for("tcp", 81)
    front.apply(one)
    talk = f"import socket,sys\ns=socket.create_connection(('{VIRTUAL}',81),5)\n" + (
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
        assert requests(client, 10) == {other.address: 10}
        assert process.communicate("go\n", timeout=10)[0] == "b\n"
    finally:
        process.kill()
        process.wait()


# The same source port throughout, so that all of it is one flow to the kernel; a line on stdin asks again.
UDP_ASKER = """
import socket, sys
client = socket.socket(type=socket.SOCK_DGRAM)
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
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    _, client = server.recvfrom(99)
    server.sendto(sys.argv[1].encode(), client)
"""


def test_a_flow_of_datagrams_moves_off_a_task_that_left(front: Front) -> None:
    h1, h2, _ = front.site.hosts
    one, other, client = front.attach(h1, 11), front.attach(h2, 12), front.attach(h1, 13)
    for task in (one, other):
        task.serve(sys.executable, "-c", UDP_NAME, task.address)
        task.wait_for("udp", 53)
    asker = subprocess.Popen(
        ["nsenter", f"--net={client.netns}", sys.executable, "-c", UDP_ASKER, VIRTUAL],
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
