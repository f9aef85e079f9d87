"""Hosts that are network namespaces, each with a `DataPath` of its own; nothing is faked.

`Site` makes and clears all of it; `overlay_host.py` is the program that runs in each host.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
INGRESS = "ingress0000000000000000000"[:25]
UNDERLAY = f"10.231.{os.getpid() % 250}"
"""One for each process of the tests: WireGuard's sockets are the machine's, named after addresses."""
OUTSIDE = f"{UNDERLAY}.200"
IPV6_UNDERLAY = "fd00:231:77::"
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
# Answers with the address that it is asked from.
UDP_ECHO = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    _, client = server.recvfrom(99)
    server.sendto(client[0].encode(), client)
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


@dataclass(eq=False)
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
        self.ipv6_address = IPV6_UNDERLAY + address.rsplit(".", 1)[1]
        self.process: subprocess.Popen | None = None
        self.tasks: list[Task] = []

    @property
    def argv(self) -> list[str]:
        """The program of a host, which obeys orders on its standard input."""
        program = ("tests.integration.overlay_host", self.address, str(self.directory), "")
        return ["nsenter", f"--net=/run/netns/{self.netns}", sys.executable, "-m", *program]

    def begin(self, **environment: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            self.argv, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=os.environ | environment
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
        for program in ("names", "relay"):  # they outlive it
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.directory / f"{program}.sock"))
                connection.sendall(b'{"end": true}\n')
                while connection.recv(4096):
                    pass


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
        run("ip", "-n", hub, "addr", "add", f"{IPV6_UNDERLAY}200/64", "dev", "br0", "nodad")
        run("ip", "-n", hub, "link", "set", "lo", "up")
        for host in self.hosts:
            run("ip", "netns", "add", host.netns)
            run(*f"ip -n {hub} link add {host.name} type veth peer name eth0 netns {host.netns}".split())
            run("ip", "-n", hub, "link", "set", host.name, "master", "br0", "up")
            for command in (
                "link set lo up",
                f"addr add {host.address}/24 dev eth0",
                f"addr add {host.ipv6_address}/64 dev eth0 nodad",
                "link set eth0 up",
            ):
                run("ip", "-n", host.netns, *command.split())
            host.directory.mkdir()
            host.begin()

    def down(self) -> None:
        for host in self.hosts:
            host.clean()
            for pid in run("ip", "netns", "pids", host.netns, check=False).split():
                os.kill(int(pid), 9)  # a proxy, which outlives its host's process
            for mount in (*host.directory.glob("netns/*"), *host.directory.glob("wireguard/wg")):
                run("umount", "-l", str(mount), check=False)
            address = bytes(map(int, host.address.split("."))).hex()
            for control in Path("/var/run/wireguard").glob(f"sww?{address}.sock"):
                control.unlink()  # its program ends with it
        for name in [f"{self.prefix}hub", *(host.netns for host in self.hosts)]:
            run("ip", "netns", "del", name, check=False)

    def apply(self, ports: list[dict], **more: object) -> None:
        """`more`: what differs from a plain ingress network, and the terms of encryption."""
        terms = {key: more.pop(key) for key in ("encryption", "peers") if key in more}
        for host in self.hosts:
            host.ask("apply", networks=[self.network(host) | more], ports=ports, **terms)

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
