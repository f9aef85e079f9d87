"""What would make the network's programs stumble: floods of questions, garbage, an nft that is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.base.clock import SystemClock
from tests.integration.overlay_front import Front, ask
from tests.integration.overlay_site import INGRESS, PORT, TIMEOUT, Host, Site, fetch, port, serve_http

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]
CLOCK = SystemClock()
# Questions, broken ones, answers (which must not be answered, or two servers would talk for ever), and noise.
FLOOD = """
import random, select, socket, struct, sys, time
chance = random.Random(int(sys.argv[1]))
question = struct.pack("!HHHHHH", 1, 256, 1, 0, 0, 0) + b"\\3web\\0" + struct.pack("!HH", 1, 1)
answers = bytes([question[0], question[1], question[2] | 0x80]) + question[3:]
client = socket.socket(type=socket.SOCK_DGRAM)
client.connect(("127.0.0.11", 53))
client.setblocking(False)
ends, heard = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < ends:
    for _ in range(64):
        kind = chance.randrange(5)
        noise = chance.randbytes(chance.randrange(600))
        data = bytearray((question, question, answers, noise, question)[kind])
        if kind == 4:
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        if kind == 1:
            data = data[:chance.randrange(len(data))]
        try:
            client.send(data)
        except OSError:
            pass
    while select.select([client], [], [], 0)[0]:
        try:
            heard += bool(client.recv(4096))
        except OSError:
            break
print(heard)
"""
# As many connections as it may have, which then say nothing, or half a question.
SILENT = """
import socket, sys
held = []
for number in range(300):
    stream = socket.create_connection(("127.0.0.11", 53), timeout=2)
    if number % 2:
        stream.sendall(b"\\x00\\x30half")
    held.append(stream)
print("ready", flush=True)
sys.stdin.read()
"""
SECONDS = 3.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.up()
        yield site
    finally:
        site.down()


def name_server(host: Host) -> int:
    """Its pid."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.directory / "names.sock"))
        return int.from_bytes(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder
        )


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def test_a_flood_in_one_task_leaves_the_others_their_answers(site: Site, tmp_path: Path) -> None:
    front = Front(site)
    front.apply()
    first = site.hosts[0]
    attacker, honest, web = front.attach(first, 11), front.attach(first, 12), front.attach(first, 13)
    front.apply(web)
    assert ask(honest, "tasks.web") == ("NOERROR", [web.address])
    pid, before = name_server(first), resident_kib(name_server(first))
    attacks = [
        subprocess.Popen(
            ["nsenter", f"--net={attacker.netns}", sys.executable, "-c", source, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for source, arguments in ((SILENT, ()), (FLOOD, ("7", str(SECONDS))))
    ]
    try:
        assert attacks[0].stdout.readline() == "ready\n"
        slowest, asked = 0.0, 0
        while attacks[1].poll() is None:
            began = CLOCK.monotonic()
            for more in ((), ("tcp",)):
                assert ask(honest, "tasks.web", "A", *more) == ("NOERROR", [web.address])
            slowest, asked = max(slowest, CLOCK.monotonic() - began), asked + 1
        heard = int(attacks[1].communicate(timeout=TIMEOUT)[0])
    finally:
        for attack in attacks:
            attack.kill()
            attack.communicate()
    assert asked > 2
    assert slowest < 2.0, "two starts of an interpreter are in it"
    assert heard > 1000 * SECONDS, "the flood was one"
    assert name_server(first) == pid, "it has not ended meanwhile"
    assert resident_kib(pid) < before + 30_000
    assert ask(honest, "tasks.web") == ("NOERROR", [web.address])


# `nft` that is killed at some moment of its work, if the file that is named says so.
KILLED_NFT = """#!/bin/sh
read chance < {directory}/chance
[ "$chance" = 0 ] && exec {nft} "$@"
exec timeout -s KILL "$chance" {nft} "$@"
"""


def test_a_killed_nft_leaves_the_old_rules_or_the_new(site: Site, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "nft"
    program.write_text(KILLED_NFT.format(directory=tmp_path, nft=shutil.which("nft")))
    program.chmod(0o755)
    (tmp_path / "chance").write_text("0\n")
    first = site.hosts[0]
    first.end()
    first.begin(PATH=f"{programs}:{os.environ['PATH']}")
    site.apply([])
    tasks = [first.attach(11), first.attach(12), site.hosts[1].attach(21)]
    for task in tasks:
        serve_http(task, tmp_path)
    site.apply([port(*tasks)])
    chance = random.Random(int(os.environ.get("NETWORK_SEED", "7")))
    former, kills, torn = targets(first), 0, 0
    for _ in range(40):
        chosen = chance.sample(tasks, chance.randrange(1, 4))
        (tmp_path / "chance").write_text(f"{chance.uniform(0.001, 0.012):.4f}\n")
        many = [port(*chosen), *(port(*chosen) | {"published_port": PORT + n} for n in range(1, 60))]
        answer = first.ask_raw("apply", networks=[site.network(first)], ports=many)
        (tmp_path / "chance").write_text("0\n")
        kills += "error" in answer
        found = targets(first)
        wanted = {task.address for task in chosen}
        torn += found not in (former, [wanted] * 60)
        first.ask("verify")
        former = targets(first)
        assert former == [wanted] * 60
    assert torn == 0
    assert kills > 5
    assert fetch(site.outside, first.address, 2 * len(chosen)) == {task.address: 2 for task in chosen}


def targets(host: Host) -> list[set[str]]:
    """Where each published port leads to."""
    listed = json.loads(host.nsenter("nft", "-j", "list", "table", "ip", "swarm"))["nftables"]
    rules = [e["rule"]["expr"] for e in listed if "rule" in e and e["rule"]["chain"].startswith("port-")]
    return [set(_addresses(rule)) for rule in rules]


def _addresses(value: object) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("10.0.0."):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _addresses(item)


def test_networks_come_and_go_and_nothing_is_left(site: Site) -> None:
    first = site.hosts[0]
    site.apply([])
    before = traces(first)
    chance = random.Random(int(os.environ.get("NETWORK_SEED", "7")))
    ids = [f"churn{number:020d}" for number in range(60)]
    for _ in range(6):
        chosen = chance.sample(ids, 30)
        first.ask("apply", **plane(site, chosen))
        assert {name.removeprefix("ov-") for name in traces(first)[0]} - {INGRESS} == set(chosen)
    began = CLOCK.monotonic()
    first.ask("apply", **plane(site, []))
    assert first.ask("verify") == 0
    while traces(first) != before:  # the kernel takes namespaces down in its own time
        assert CLOCK.monotonic() - began < 5.0, (before, traces(first))
        time.sleep(0.02)


def plane(site: Site, ids: list[str]) -> dict:
    """Networks with a leg, a service with a virtual address, and a task elsewhere, each."""
    first, second = site.hosts[:2]
    networks, services = [site.network(first)], []
    for network_id in ids:
        number = int(network_id.removeprefix("churn"))
        far = {"address": f"10.7.{number}.9", "host": second.address}
        networks.append(
            {
                "id": network_id,
                "name": network_id,
                "vni": 5000 + number,
                "subnets": [f"10.7.{number}.0/24"],
                "host_address": f"10.7.{number}.2",
                "endpoints": [far],
            }
        )
        services.append(
            {
                "network_id": network_id,
                "service_id": f"s{number}",
                "name": "web",
                "virtual_ip": f"10.7.{number}.3",
                "backends": [{"address": far["address"]}],
            }
        )
    return {"networks": networks, "ports": [], "services": services}


def traces(host: Host) -> tuple[list[str], list[str]]:
    """Namespaces of networks, links of the host."""
    names = sorted(path.name for path in host.directory.glob("netns/ov-*"))
    return names, sorted(link["ifname"] for link in json.loads(host.nsenter("ip", "-j", "link")))
