"""SIGKILL in the middle of a change of a host's networks: the next process makes it as if nothing had been.

The whole life of a host's part of the network (joining, a task that comes, its service, the task's end, the
leaving) is played once to learn every point at which it may die, and then again for each of some of these
points. After each death the plan is applied anew, and the kernel is compared with one that was never
disturbed: links, addresses, routes, entries, firewall tables, settings, files, programs. Then traffic, then
the leaving.

NETWORK_CRASHES is how many points are tried (`all` of them take minutes), NETWORK_SEED which.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from swarm.base.clock import SystemClock
from swarm.model.embedded import embed
from tests.chaos.points import names_in_code
from tests.integration.overlay_front import IPV6_SUBNET
from tests.integration.overlay_site import (
    INGRESS,
    PORT,
    ROOT,
    TIMEOUT,
    Host,
    Site,
    Task,
    fetch,
    port,
    run,
    serve_http,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

CLOCK = SystemClock()
VIRTUAL = "10.0.0.200"
SETTINGS = (
    "net.ipv4.ip_forward",
    "net.bridge.bridge-nf-call-iptables",
    *(f"net.ipv6.conf.{link}.disable_ipv6" for link in ("all", "default")),
    *(f"net.ipv4.conf.{link}.rp_filter" for link in ("all", "default")),
    *(f"net.ipv6.conf.default.{name}" for name in ("accept_ra", "addr_gen_mode", "dad_transmits")),
    "net.ipv6.conf.all.forwarding",
    "net.bridge.bridge-nf-call-ip6tables",
)
_LOOK = f"""
for what in link address "neigh show nud permanent" "route show table all"; do ip -j $what; echo =; done
bridge -j fdb; echo =
nft -j list ruleset; echo =
sysctl -e {" ".join(SETTINGS)}
"""
Point = tuple[str, int]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.up()
        yield site
    finally:
        site.down()


class Life:
    """What h1 is told from joining to leaving; a task of h2's is there all the time."""

    def __init__(self, site: Site, directory: Path, *, encrypted: bool) -> None:
        self.site = site
        self.directory = directory
        self.encrypted = encrypted
        self.terms: dict = {"encrypted": True} if encrypted else {"ipv6_subnet": IPV6_SUBNET}
        self.first, self.second = site.hosts[:2]
        self.near = Task(task_id=f"task{11:021d}", address="10.0.0.11", host=self.first)
        self.given = {
            "task_id": self.near.task_id,
            "attachments": [[INGRESS, f"{self.near.address}/24", *self._beside(self.near)]],
            "host_ports": [["tcp", 9000, 80]],
            "names_on": [INGRESS],
        }
        self._tell_second()
        self.far = self._attach_far()
        serve_http(self.far, directory)
        self.first.tasks.append(self.near)

    def plane(self, host: Host, *tasks: Task) -> dict:
        """What a manager pushes, with these tasks behind everything; without any, the network alone."""
        named = [{"address": t.address, "names": [f"web.{t.address}"]} for t in tasks]
        proxied = port(*tasks) | {"published_port": PORT + 1, "proxy_protocol": True}
        service = {
            "network_id": INGRESS,
            "service_id": "s",
            "name": "web",
            "virtual_ip": VIRTUAL,
            "backends": named,
        }
        told: dict = {
            "networks": [self.site.network(host) | self.terms],
            "ports": [port(*tasks), proxied] if tasks else [],
            "services": [service] if tasks else [],
        }
        if self.encrypted:
            told |= {"encryption": {"generation": 1}, "peers": self._peers()}
        return told

    def orders(self) -> str:
        """One per line, as `overlay_host` takes them."""
        full = self.plane(self.first, self.near, self.far)
        steps: list[tuple[str, Mapping]] = [
            ("start", {}),
            ("apply", self.plane(self.first)),
            ("attach", self.given),
            ("apply", full),
            ("apply", full | {"ports": [port(self.far)]}),
            ("detach", {"task_id": self.near.task_id}),
            ("apply", full | {"networks": [], "ports": [], "services": []}),
            ("close", {"remove": True}),
        ]
        return "".join(json.dumps({"command": c, "given": given}) + "\n" for c, given in steps)

    def play(self, failpoints: str) -> tuple[int, str, str]:
        """The exit status and both outputs; files, because programs beside it outlive it and hold its own."""
        with TemporaryFile("w+") as orders, TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
            orders.write(self.orders())
            orders.seek(0)
            status = subprocess.run(
                self.first.argv,
                stdin=orders,
                stdout=output,
                stderr=errors,
                cwd=ROOT,
                env=os.environ | {"SWARM_FAILPOINTS": failpoints},
                timeout=60,
                check=False,
            ).returncode
            output.seek(0)
            errors.seek(0)
            return status, output.read(), errors.read()

    def resume(self) -> None:
        """As a new swarmd does: what is desired is told, and what is to run is attached."""
        self.first.begin()
        self.first.ask("apply", **self.plane(self.first, self.near, self.far))
        link = self.first.ask("attach", **self.given)
        self.near.netns, self.near.gateway_address = link["netns"], link["address"]
        self._tell_second()
        self.first.ask("apply", **self.plane(self.first, self.near, self.far))

    def check_traffic(self) -> None:
        serve_http(self.near, self.directory)
        both = {self.near.address, self.far.address}  # how evenly is another test's matter
        opened = (
            "curl -s -m 15 --retry-connrefused http://{}:80/name"  # a lost handshake is repeated after 5 s
        )
        assert self.near.nsenter("sh", "-c", opened.format(self.far.address)).strip() == self.far.address
        assert set(fetch(self.site.outside, self.first.address, 4)) == both
        assert set(fetch(self.site.outside, self.second.address, 4)) == both
        assert set(fetch(self.near.nsenter, VIRTUAL, 4, number=80)) == both
        if not self.encrypted:
            virtual = f"[{embed(VIRTUAL, IPV6_SUBNET)}]"
            assert set(fetch(self.near.nsenter, virtual, 4, number=80)) == both
        assert fetch(self.site.outside, self.first.address, number=9000) == {self.near.address: 1}
        assert fetch(self.far.nsenter, self.near.address, number=80) == {self.near.address: 1}

    def leave(self) -> None:
        self.near.stop()
        self.first.ask("detach", task_id=self.near.task_id)
        self.first.ask("close", remove=True)
        self.first.end()

    def _attach_far(self) -> Task:
        far = Task(task_id=f"task{21:021d}", address="10.0.0.21", host=self.second)
        addresses = [f"{far.address}/24", *self._beside(far)]
        link = self.second.ask("attach", task_id=far.task_id, attachments=[[INGRESS, *addresses]])
        far.netns = link["netns"]
        self.second.tasks.append(far)
        return far

    def _beside(self, task: Task) -> list[str]:
        return [] if self.encrypted else [f"{embed(task.address, IPV6_SUBNET)}/64"]

    def _tell_second(self) -> None:
        tasks = (self.near, self.far) if self.second.tasks else ()
        self.second.ask("apply", **self.plane(self.second, *tasks))
        if self.encrypted:  # with the keys that it has made
            self.second.ask("apply", **self.plane(self.second, *tasks))

    def _peers(self) -> list[dict]:
        return [
            {"host": host.address, "keys": host.ask("keys")}
            for host in (self.first, self.second)
            if host.process is not None
        ]


# --- what there is ---------------------------------------------------------------------------------------


def look(host: Host) -> dict[str, list[str]]:
    """Everything of the host's network, by names that are the same each time."""
    places = {"host": []} | {
        str(path.relative_to(host.directory)): [f"--net={path}"]
        for path in (*host.directory.glob("netns/*"), *host.directory.glob("wireguard/wg"))
    }
    seen: dict[str, list[str]] = {}
    for name, inside in places.items():
        said = (
            host.nsenter("nsenter", *inside, "sh", "-c", _LOOK) if inside else host.nsenter("sh", "-c", _LOOK)
        )
        *listings, settings = _split(said)
        for kind, listed in zip(
            ("link", "address", "neighbour", "route", "forwarding", "rules"), listings, strict=True
        ):
            seen[f"{name} {kind}"] = _plain(kind, listed)
        seen[f"{name} settings"] = settings
    if "wireguard/wg" in places:
        dump = host.nsenter("nsenter", *places["wireguard/wg"], "wg", "show", "all", "dump").splitlines()
        seen["tunnels"] = sorted(" ".join((f[0], *f[3:5])) for f in map(str.split, dump) if len(f) > 5)
    seen["files"] = sorted(str(path.relative_to(host.directory)) for path in host.directory.rglob("*"))
    seen["programs"] = list_programs(host)
    return seen


def _split(said: str) -> list:
    *listings, settings = said.split("=\n", maxsplit=6)
    return [*(json.loads(listed.strip() or "[]") for listed in listings), sorted(settings.splitlines())]


def _plain(kind: str, listed: object) -> list[str]:
    """Without numbers that the kernel chooses, and in an order of ours."""
    if kind == "rules":
        entries = [entry for entry in listed["nftables"] if "metainfo" not in entry]
        return sorted(json.dumps(_without_order(entry), sort_keys=True) for entry in entries)
    names = {
        "link": ("ifname", "mtu", "address", "master", "group"),
        "address": ("ifname", "addr_info"),
        "neighbour": ("dst", "dev", "lladdr"),
        "route": ("dst", "dev", "gateway", "table", "scope"),
        "forwarding": ("mac", "ifname", "dst", "master", "state"),
    }[kind]
    entries = [entry for entry in listed if entry and not _is_passing(entry)]
    if kind == "address":
        return sorted(
            f"{entry['ifname']} {one['local']}/{one['prefixlen']}"
            for entry in entries
            for one in entry["addr_info"]
            if one["scope"] != "link"
        )
    found = sorted(json.dumps({n: _given(entry.get(n)) for n in names}, sort_keys=True) for entry in entries)
    if kind == "link":
        found += sorted(f"{entry['ifname']} up" for entry in entries if "UP" in entry["flags"])
    return found


def _given(value: object) -> object:
    """A MAC that the kernel has made up is any."""
    is_mac = isinstance(value, str) and re.fullmatch("(..:){5}..", value)
    return "any" if is_mac and not value.startswith("02:42") else value


def _is_passing(entry: dict) -> bool:
    """What the kernel adds for IPv6 and multicast in its own time."""
    ends = str(entry.get("mac", "")), str(entry.get("dst", ""))
    return ends[0].startswith(("33:33", "01:00:5e")) or ends[1].startswith(("ff00:", "fe80:", "multicast"))


def _without_order(value: object) -> object:
    if isinstance(value, dict):
        kept = {k: _without_order(v) for k, v in value.items() if k != "handle"}
        if isinstance(kept.get("elem"), list):
            kept["elem"] = sorted(kept["elem"], key=lambda e: json.dumps(e, sort_keys=True))
        return kept
    return [_without_order(v) for v in value] if isinstance(value, list) else value


def list_programs(host: Host) -> list[str]:
    """What runs in the host's own namespace beside the process that stands for swarmd."""
    own = host.process.pid if host.process else 0
    found = []
    for pid in map(int, run("ip", "netns", "pids", host.netns).split()):
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if pid != own and argv[0]:
            found.append(argv[2] if argv[1:2] == ["-m"] else os.path.basename(argv[0]))
    return sorted(found)


def wait_equal(host: Host, expected: dict[str, list[str]], what: str) -> None:
    """Programs take a moment to end."""
    deadline = CLOCK.monotonic() + TIMEOUT / 2
    while (seen := look(host)) != expected:
        lost, more = _lines(expected) - _lines(seen), _lines(seen) - _lines(expected)
        assert CLOCK.monotonic() < deadline, "\n".join(
            [what, *(f"- {x}" for x in lost), *(f"+ {x}" for x in more)]
        )
        time.sleep(0.05)


def _lines(seen: dict[str, list[str]]) -> Counter[str]:
    return Counter(f"{part}: {line}" for part, lines in seen.items() for line in lines)


# --- dying -----------------------------------------------------------------------------------------------


def learn_points(life: Life) -> list[Point]:
    """Every passage of every point of the network, in an undisturbed life."""
    names = [name for name in names_in_code() if name.startswith("network.")]
    armed = ";".join(f"{name}:{hit}:sleep:0" for name in names for hit in range(1, 200))
    status, answers, said = life.play(armed)
    assert status == 0, said
    assert '"error"' not in answers, answers
    passed = re.findall(r"^failpoint (\S+) hit (\d+):", said, re.MULTILINE)
    return [(name, int(hit)) for name, hit in passed]


def choose(points: list[Point], seed: int, count: str) -> list[Point]:
    """The first passage of each point, and then others by chance."""
    firsts = [point for point in points if point[1] == 1]
    others = [point for point in points if point[1] > 1]
    random.Random(seed).shuffle(others)
    chosen = firsts + others
    return chosen if count == "all" else chosen[: max(int(count), len(firsts))]


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_killed_at_any_point_the_next_process_completes_it(site: Site, tmp_path: Path, kind: str) -> None:
    seed, count = int(os.environ.get("NETWORK_SEED", "7")), os.environ.get("NETWORK_CRASHES", "14")
    site.hosts[0].ask("close", remove=True)
    site.hosts[0].end()
    bare = look(site.hosts[0])
    life = Life(site, tmp_path, encrypted=kind == "encrypted")
    points = learn_points(life)
    wait_equal(site.hosts[0], bare, "left behind by an undisturbed life")
    life.resume()
    whole = look(life.first)
    life.check_traffic()
    life.leave()
    wait_equal(life.first, bare, "left behind")
    assert len({name for name, _ in points}) > 8, points
    assert len(points) > 50, points
    died = 0
    for name, hit in choose(points, seed, count):
        what = f"{name}:{hit} of a {kind} network"
        died += life.play(f"{name}:{hit}:kill9")[0] == -9
        life.resume()
        assert life.first.ask("verify") == 0, what
        wait_equal(life.first, whole, what)
        life.check_traffic()
        life.leave()
        wait_equal(life.first, bare, f"left behind after {what}")
    assert died > 10
