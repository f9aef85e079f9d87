"""The data path between hosts that are network namespaces, proved by traffic: no part of it is faked."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

ROOT = Path(__file__).parents[2]
INGRESS = "ingress0000000000000000000"[:25]
UNDERLAY = "10.231.77"
OUTSIDE = f"{UNDERLAY}.200"
PORT = 8080
TIMEOUT = 20
UDP_SERVER = """
import socket, sys
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    _, client = server.recvfrom(99)
    server.sendto(sys.argv[1].encode(), client)
"""
# One source port throughout, so that all of it is one flow to the kernel.
UDP_CLIENT = """
import socket, sys
client = socket.socket(type=socket.SOCK_DGRAM)
client.bind(("", 5353))
client.settimeout(3)
client.connect((sys.argv[1], int(sys.argv[2])))
client.send(b"?")
print(client.recv(99).decode())
"""


def run(*argv: str, given: str | None = None, check: bool = True) -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr}")
    return done.stdout


@dataclass
class Task:
    task_id: str
    address: str
    """On the ingress network."""
    host: Host
    netns: str = ""
    gateway_address: str = ""
    servers: list[subprocess.Popen] = field(default_factory=list)

    def nsenter(self, *argv: str, check: bool = True) -> str:
        return run("nsenter", f"--net={self.netns}", *argv, check=check)

    def serve(self, *argv: str) -> None:
        self.servers.append(
            subprocess.Popen(["nsenter", f"--net={self.netns}", *argv], start_new_session=True)
        )

    def wait_for(self, protocol: str, number: int) -> None:
        """Until somebody in the task listens."""
        self.nsenter("sh", "-c", f"until grep -qs ':{number:04X} 0' /proc/net/{protocol}*; do :; done")

    def stop(self) -> None:
        for server in self.servers:
            os.killpg(server.pid, 9)
            server.wait(TIMEOUT)
        self.servers.clear()


class Host:
    """A network namespace with an address on the test's bridge, and the process that runs its data path."""

    def __init__(self, name: str, netns: str, address: str, directory: Path) -> None:
        self.name, self.netns, self.address, self.directory = name, netns, address, directory
        self.ingress_address = f"10.0.0.{int(address.rsplit('.', 1)[1]) + 1}"
        self.process: subprocess.Popen | None = None
        self.tasks: list[Task] = []

    def begin(self) -> None:
        self.process = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{self.netns}", sys.executable, "-m"),
                *("tests.integration.overlay_host", self.address, str(self.directory), ""),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.ask("start")

    def ask(self, command: str, **given: object) -> object:
        answer = self.ask_raw(command, **given)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def ask_raw(self, command: str, **given: object) -> dict:
        self.send(command, **given)
        return json.loads(self.process.stdout.readline())

    def send(self, command: str, **given: object) -> None:
        self.process.stdin.write(json.dumps({"command": command, "given": given}) + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def attach(self, number: int, host_ports: tuple = ()) -> Task:
        task = Task(task_id=f"task{number:021d}", address=f"10.0.0.{number}", host=self)
        link = self.ask(
            "attach",
            task_id=task.task_id,
            attachments=[[INGRESS, task.address + "/24"]],
            host_ports=host_ports,
        )
        task.netns, task.gateway_address = link["netns"], link["address"]
        if task.task_id not in [t.task_id for t in self.tasks]:
            self.tasks.append(task)
        return task

    def nsenter(self, *argv: str, check: bool = True, given: str | None = None) -> str:
        return run("nsenter", f"--net=/run/netns/{self.netns}", *argv, check=check, given=given)

    def clean(self) -> None:
        for task in self.tasks:
            task.stop()
        self.end()


class Site:
    """Three hosts, one client outside of them, and the desired state that a manager would push."""

    def __init__(self, directory: Path) -> None:
        self.prefix = f"swtest-{os.getpid()}-"
        self.bridge = f"swt{os.getpid() % 100000}"
        self.directory = directory
        self.hosts = [
            Host(f"h{n}", f"{self.prefix}h{n}", f"{UNDERLAY}.{n}", directory / f"h{n}") for n in (1, 2, 3)
        ]

    def up(self) -> None:
        hub = f"{self.prefix}hub"
        run("ip", "netns", "add", hub)
        run("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", hub, "link", "set", "br0", "up")
        run("ip", "-n", hub, "addr", "add", f"{OUTSIDE}/24", "dev", "br0")
        run("ip", "-n", hub, "link", "set", "lo", "up")
        for host in self.hosts:
            run("ip", "netns", "add", host.netns)
            run(*f"ip -n {hub} link add {host.name} type veth peer name eth0 netns {host.netns}".split())
            run("ip", "-n", hub, "link", "set", host.name, "master", "br0", "up")
            for command in ("link set lo up", f"addr add {host.address}/24 dev eth0", "link set eth0 up"):
                run("ip", "-n", host.netns, *command.split())
            host.directory.mkdir()
            host.begin()

    def down(self) -> None:
        for host in self.hosts:
            host.clean()
            for mount in host.directory.glob("netns/*"):
                run("umount", "-l", str(mount), check=False)
        for name in [f"{self.prefix}hub", *(host.netns for host in self.hosts)]:
            run("ip", "netns", "del", name, check=False)

    def apply(self, ports: list[dict]) -> None:
        for host in self.hosts:
            host.ask("apply", networks=[self.network(host)], ports=ports)

    def network(self, host: Host) -> dict:
        """The ingress network as `host` should have it."""
        endpoints = [{"address": t.address, "host": h.address} for h in self.hosts for t in h.tasks]
        endpoints += [{"address": h.ingress_address, "host": h.address} for h in self.hosts]
        return {
            "id": INGRESS,
            "name": "ingress",
            "vni": 4096,
            "subnets": ("10.0.0.0/24",),
            "host_address": host.ingress_address,
            "endpoints": endpoints,
        }

    def outside(self, *argv: str, check: bool = True, given: str | None = None) -> str:
        return run("nsenter", f"--net=/run/netns/{self.prefix}hub", *argv, check=check, given=given)


def port(*tasks: Task, suspects: tuple[Task, ...] = (), protocol: str = "tcp", target: int = 80) -> dict:
    backends = [{"address": task.address} for task in tasks]
    backends += [{"address": task.address, "suspect": True} for task in suspects]
    return {"protocol": protocol, "published_port": PORT, "target_port": target, "backends": backends}


def fetch(where: object, address: str, times: int = 1, number: int = PORT) -> Counter[str]:
    """Answers to `times` requests, each on a connection of its own; `-` for none."""
    script = f"for i in $(seq {times}); do curl -s -m 3 http://{address}:{number}/name || echo -; done"
    return Counter(where("sh", "-c", script).split())


def serve_http(task: Task, directory: Path) -> None:
    home = directory / task.task_id
    home.mkdir(exist_ok=True)
    (home / "name").write_text(task.address + "\n")
    task.serve("busybox", "httpd", "-f", "-p", "80", "-h", str(home))
    task.wait_for("tcp", 80)


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


def test_attaching_is_cheap(site: Site) -> None:
    site.apply([])
    first = site.hosts[0]
    times = []
    for number in range(20, 60):
        given = {"task_id": f"task{number:021d}", "attachments": [[INGRESS, f"10.0.0.{number}/24"]]}
        times.append(first.ask_raw("attach", **given)["ms"])
    print(sorted(times))
    assert sorted(times)[len(times) // 2] < 20


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
