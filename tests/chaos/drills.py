"""Faults with a figure to keep: each drill does one thing to three managers, and what must come of it.

In: a cluster of three managers at rest. Out: AssertionError with what was not kept; else the cluster at rest
again. Invariant: a drill ends its faults, and a drill that passes leaves a cluster that the next one can use.
Source: the tables of faults and criteria of the design (F8, F11, F12, F14, F22, I11).
"""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from tests.chaos import chaos_lab, scenarios, secrecy
from tests.chaos.nemesis import Nemesis
from tests.integration.cluster import Cluster

CLOCK = SystemClock()
WATCH_S = 40.0
LONG_S = 600.0
"""As long as the design wants it, when there is no limit to the time."""
LOOK_EVERY_S = 0.3
MOVE_WITHIN_S = 30.0
LOCKED_WITHIN_S = 3.0
SLOW_MACHINE_S = 3.0
DISK = "/var/lib/swarm/etcd/data/member"


@dataclass
class Ground:
    """What a drill works with."""

    cluster: Cluster
    chance: random.Random
    watch_s: float = WATCH_S
    nemesis: Nemesis = field(init=False)

    def __post_init__(self) -> None:
        self.nemesis = Nemesis(self.cluster, self.chance)

    def leader(self, via: str = "") -> str:
        """Empty while nobody leads."""
        hosts = (via,) if via else self.cluster.hosts
        for host in hosts:
            try:
                nodes = self.cluster.get("/nodes", host)
            except SwarmError:
                continue
            for node in nodes:
                if (node.get("ManagerStatus") or {}).get("Leader"):
                    name: str = node["Description"]["Hostname"]
                    return name
        return ""

    def wait_leader(self) -> str:
        return self.cluster.wait_until(self.leader, "somebody leads", MOVE_WITHIN_S)

    def others(self, host: str) -> list[str]:
        return [h for h in self.cluster.hosts if h != host]

    def store_state(self, host: str) -> str:
        found: str = self.cluster.get("/system/info", host)["Store"]["State"]
        return found


class Watched:
    """What could be seen while something was going on: who led, who was called down, what was refused."""

    def __init__(self) -> None:
        self.leaders: list[str] = []
        self.down: set[str] = set()
        self.answers = 0

    @property
    def changes(self) -> int:
        """Of leadership."""
        return len(self.leaders) - 1

    def see(self, nodes: list[dict]) -> None:
        self.answers += 1
        for node in nodes:
            name = node["Description"]["Hostname"]
            if node["Status"]["State"] == "down":
                self.down.add(name)
            if (node.get("ManagerStatus") or {}).get("Leader") and self.leaders[-1:] != [name]:
                self.leaders.append(name)


@contextmanager
def watching(ground: Ground) -> Iterator[Watched]:
    """Look at the nodes through one manager after the other, while the block runs."""
    seen, ended = Watched(), threading.Event()
    hosts = ground.cluster.hosts

    def look() -> None:
        turn = 0
        while not ended.wait(LOOK_EVERY_S):
            turn += 1
            try:
                seen.see(ground.cluster.get("/nodes", hosts[turn % len(hosts)]))
            except SwarmError:
                continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


# --- the network -----------------------------------------------------------------------------------------


def lossy_network(ground: Ground) -> None:
    """A tenth of all packets is lost: nobody is taken for dead."""
    with ExitStack() as stack:
        for host in ground.cluster.hosts:
            stack.enter_context(ground.nemesis.lose(host, 10))
        steady(ground, leader_changes=1)


def long_lines(ground: Ground) -> None:
    """200 ms there and back between any two hosts, half of it more or less."""
    with ExitStack() as stack:
        for host in ground.cluster.hosts:
            stack.enter_context(ground.nemesis.late(host, 0.05, 0.025))
        assert _round_trip_s(ground) > 0.12, "the lines are not long"
        steady(ground, leader_changes=1)


def narrow_lines(ground: Ground) -> None:
    """1 Mbit/s out of every host."""
    with ExitStack() as stack:
        for host in ground.cluster.hosts:
            stack.enter_context(ground.nemesis.narrow(host, "1mbit"))
        steady(ground, leader_changes=1)


def steady(ground: Ground, *, leader_changes: int) -> None:
    """While it is watched no node is down, writes come through, leadership stays where it is."""
    with watching(ground) as seen:
        ends = CLOCK.monotonic() + ground.watch_s
        while CLOCK.monotonic() < ends:
            write(ground)
    assert not seen.down, f"called down: {sorted(seen.down)}"
    assert seen.changes <= leader_changes, f"leadership moved: {seen.leaders}"
    assert seen.answers > ground.watch_s / 3, f"only {seen.answers} answers in {ground.watch_s:g} s"


def write(ground: Ground, timeout_s: float = 10.0, hosts: Sequence[str] = ()) -> str:
    """A label of the cluster's first node, set through any manager, or one of `hosts`; who it was."""
    host = ground.chance.choice(hosts or ground.cluster.hosts)
    mark = str(ground.chance.randrange(1 << 40))

    def written() -> bool:
        with ground.cluster.client(host) as client:
            node = client.get("/nodes")[0]
            spec = {**node["Spec"], "Labels": {"mark": mark}}
            client.post(f"/nodes/{node['ID']}/update", spec, version=node["Version"]["Index"])
        return True

    ground.cluster.wait_until(written, f"{host} takes a write", timeout_s)
    return host


def _round_trip_s(ground: Ground) -> float:
    a, b, *_ = ground.cluster.hosts
    said = ground.cluster.output(a, "busybox", "ping", "-c", "3", "-q", ground.cluster.lab.address(b))
    return float(said.rsplit("=", 1)[1].split("/")[1]) / 1000


# --- the disk --------------------------------------------------------------------------------------------


def slow_disk(ground: Ground) -> None:
    """A leader whose syncs take 300 ms goes on leading; with 2 s it works, or another one leads."""
    leader = ground.wait_leader()
    with ground.nemesis.slow_sync(leader, 0.3), watching(ground) as seen:
        ends = CLOCK.monotonic() + ground.watch_s
        while CLOCK.monotonic() < ends:
            write(ground)
    assert seen.changes == 0, f"leadership moved: {seen.leaders}"
    assert not seen.down, f"called down: {sorted(seen.down)}"
    with ground.nemesis.slow_sync(leader, 2.0):
        ground.cluster.wait_until(
            lambda: ground.leader(ground.others(leader)[0]) in ground.others(leader) or _quick(ground),
            "leadership moves, or writes are quick all the same",
            MOVE_WITHIN_S,
        )
        write(ground, MOVE_WITHIN_S, ground.others(leader))  # it cannot keep up itself


def _quick(ground: Ground) -> bool:
    began = CLOCK.monotonic()
    try:
        write(ground, 5.0)
    except AssertionError:
        return False
    return CLOCK.monotonic() - began < 1.0


def dying_disk(ground: Ground) -> None:
    """An etcd whose sync has failed does not go on with what it has; the others do."""
    victim = ground.wait_leader()
    other = ground.others(victim)[0]
    (before,) = ground.cluster.output(victim, "pgrep", "-x", "etcd").split()
    with ground.nemesis.failing_sync(victim):
        ground.cluster.wait_until(
            lambda: before not in ground.cluster.run(victim, "pgrep", "-x", "etcd").stdout.split(),
            "the etcd whose disk fails has ended",
        )
        log = ground.cluster.output(victim, "busybox", "tail", "-n", "50", "/var/lib/swarm/etcd/log")
        assert "input/output error" in log, log
        ground.cluster.wait_until(lambda: ground.leader(other), "somebody leads", MOVE_WITHIN_S)
    ground.cluster.wait_until(lambda: ground.store_state(victim) in ("OK", "SLOW"), "it is back", 30.0)


def damaged_log(ground: Ground) -> None:
    """A byte of a member's log is wrong, or its end is missing: it is said, and one command heals."""
    victim = ground.chance.choice(ground.cluster.hosts)
    other = ground.others(victim)[0]
    service = ground.cluster.swarm(
        other, "service", "create", "-d", "--replicas", "0", "--name", "kept", "web"
    ).strip()
    cut = ground.chance.random() < 0.3  # nothing tells a log that was cut from one that never went further
    offset = ground.chance.randrange(200, 3000)
    damage_log(ground, victim, f"truncate -s {offset} $log" if cut else _flip(offset))
    state = ground.cluster.wait_until(lambda: _settled(ground, victim), "its store's state", 60.0)
    if state == "CORRUPT":
        assert "swarm system repair" in ground.cluster.get("/system/info", victim)["Store"]["Message"]
        repair(ground, victim)
    ground.cluster.wait_until(lambda: ground.store_state(victim) in ("OK", "SLOW"), "it is whole", 30.0)
    found = scenarios.ask(ground.cluster, lambda c: c.get("/services", victim))
    assert [s["ID"] for s in found] == [service]
    ground.cluster.swarm(other, "service", "rm", "kept")


def damaged_database(ground: Ground) -> None:
    """Bytes of the founder's database are wrong: etcd dies of it or goes on; swarmd says so and lives."""
    victim, cluster = ground.cluster.hosts[0], ground.cluster
    other = ground.others(victim)[0]
    size = int(cluster.output(victim, "stat", "-c", "%s", f"{DISK}/snap/db"))
    places = [ground.chance.randrange(8192, size) for _ in range(ground.chance.choice((8, 40, 400)))]
    wrong = f"dd of={DISK}/snap/db bs=1 conv=notrunc 2>/dev/null seek"
    script = Path(f"/tmp/{cluster.lab.name}.damage")
    script.write_text("".join(f"printf '\\377' | {wrong}={place}\n" for place in places))
    damage_log(ground, victim, f"sh {script}")
    script.unlink()
    daemon = cluster.daemon_pid(victim)
    create = ("service", "create", "-d", "--replicas", "0", "--name", "meanwhile", "web")
    scenarios.insist(cluster, other, create, lambda: cluster.get("/services/meanwhile", other))
    state = cluster.wait_until(lambda: _settled(ground, victim), "its store's state", 60.0)
    if state == "CORRUPT":
        repair(ground, victim)
    cluster.wait_until(lambda: ground.store_state(victim) in ("OK", "SLOW"), "it is whole", 30.0)
    same = [
        [s["ID"] for s in scenarios.ask(cluster, lambda c, host=host: c.get("/services", host))]
        for host in (victim, other)
    ]
    assert same[0] == same[1] != [], same
    assert cluster.daemon_pid(victim) == daemon, "swarmd has died of it"
    cluster.swarm(other, "service", "rm", "meanwhile")


def repair(ground: Ground, host: str) -> None:
    """One command; again while etcd finds a member too young to change the others."""
    scenarios.insist(
        ground.cluster, host, ("system", "repair"), lambda: ground.store_state(host) in ("OK", "SLOW")
    )


def damage_log(ground: Ground, host: str, command: str) -> None:
    """Kill the host's etcd, do it to `$log`, its oldest log file, and let swarmd start etcd again."""
    ground.cluster.output(
        host,
        "sh",
        "-c",
        "daemon=$(pgrep -P 1 -f swarm.cli.swarmd); kill -STOP $daemon; kill -9 $(pgrep -x etcd);"
        f" log=$(ls {DISK}/wal/*.wal | head -1); {command}; kill -CONT $daemon",
    )
    ground.cluster.wait_until(lambda: ground.store_state(host) not in ("OK", "SLOW"), "it is noticed", 10.0)


def _flip(offset: int) -> str:
    return (
        f"old=$(dd if=$log bs=1 skip={offset} count=1 2>/dev/null | od -An -tu1);"
        f' printf "\\\\$(printf %o $((old ^ 4)))" | dd of=$log bs=1 seek={offset} conv=notrunc 2>/dev/null'
    )


def _settled(ground: Ground, host: str) -> str:
    state = ground.store_state(host)
    return state if state in ("OK", "SLOW", "CORRUPT") else ""


# --- the clock -------------------------------------------------------------------------------------------


def wrong_clock(ground: Ground) -> None:
    """swarmd's clock jumps to and fro under it: no election, no task moves, no node is lost."""
    victim = ground.chance.choice(ground.cluster.hosts)
    with chaos_lab.clock(ground.cluster, victim) as jump:
        chaos_lab.wait_settled(ground.cluster, len(ground.cluster.hosts))
        tasks = tasks_by_id(ground)
        leader = ground.wait_leader()
        with watching(ground) as seen:
            for shift in ("+3600", "-3600", "+2592000", "+0", "+3600", "-3600", "+0"):
                jump(shift)
                ends = CLOCK.monotonic() + ground.watch_s / 10
                while CLOCK.monotonic() < ends:
                    write(ground)
        assert seen.leaders == [leader], f"leadership moved: {seen.leaders}"
        assert not seen.down, f"called down: {sorted(seen.down)}"
        assert tasks_by_id(ground) == tasks, "tasks were moved"


def expired_by_the_clock(ground: Ground) -> None:
    """A host whose clock is years ahead or behind says so, and is back when its clock is right."""
    victim = ground.chance.choice(ground.others(ground.wait_leader()))
    other = ground.others(victim)[0]
    identity = ground.cluster.get("/info", victim)["Swarm"]["NodeID"]
    with chaos_lab.clock(ground.cluster, victim) as jump:
        for shift, text in (("+31536000", "expired"), ("-2592000", "not yet valid")):
            jump(shift)
            chaos_lab.restart_daemon(ground.cluster, victim)
            ground.cluster.wait_until(lambda: seen_as(ground, victim, other) == "down", "it is out", 30.0)
            ground.cluster.wait_until(
                lambda text=text: text in ground.cluster.lab.log(victim), f"its log says: {text}", 30.0
            )
            jump("+0")
            chaos_lab.wait_settled(ground.cluster, len(ground.cluster.hosts), 90.0)
    assert scenarios.ask(ground.cluster, lambda c: c.get("/info", victim))["Swarm"]["NodeID"] == identity


def seen_as(ground: Ground, host: str, via: str) -> str:
    states = {n["Description"]["Hostname"]: n["Status"]["State"] for n in ground.cluster.get("/nodes", via)}
    return states[host]


def tasks_by_id(ground: Ground) -> dict[str, str]:
    return {t["ID"]: t["Status"]["State"] for t in ground.cluster.get("/tasks")}


# --- locks -----------------------------------------------------------------------------------------------


def all_locked(ground: Ground) -> None:
    """Every manager restarts locked at the same time; each opens with the key, and all is there again."""
    cluster = ground.cluster
    service = cluster.swarm(cluster.hosts[0], "service", "create", "-d", "--name", "locked", "web").strip()
    key = scenarios.lock(cluster)
    began = CLOCK.monotonic()
    cluster.on_all(lambda host: chaos_lab.restart_daemon(cluster, host))
    for host in cluster.hosts:
        cluster.wait_until(lambda host=host: _state(cluster, host) == "locked", f"{host} is locked", 10.0)
    took = CLOCK.monotonic() - began
    assert took < LOCKED_WITHIN_S + SLOW_MACHINE_S, f"locked only after {took:.1f} s"
    wrong = cluster.lab.exec(cluster.hosts[0], ("swarm", "unlock"), feed="SWMKEY-1-" + "A" * 43 + "\n")
    assert "invalid key provided" in wrong.stderr
    cluster.on_all(lambda host: cluster.lab.exec(host, ("swarm", "unlock"), feed=f"{key}\n"))
    chaos_lab.wait_settled(cluster, len(cluster.hosts), MOVE_WITHIN_S)
    assert [s["ID"] for s in cluster.get("/services")] == [service]
    cluster.wait_running("locked", 1, 30.0)
    cluster.swarm(cluster.hosts[0], "update", "--autolock=false")
    scenarios.wait_locks(cluster, "open")
    cluster.swarm(cluster.hosts[0], "service", "rm", "locked")
    cluster.wait_until(lambda: not cluster.get("/tasks"), "no task is left")


def nothing_lies_open(ground: Ground) -> None:
    """Tokens, the unlock key, private keys, a label: on no disk, in no log, in no process's words."""
    cluster, canary = ground.cluster, f"canary{ground.chance.randrange(1 << 60):x}"
    first = cluster.hosts[0]
    note = ("--replicas", "0", "--label", f"note={canary}")  # whoever runs a task may know its service
    cluster.swarm(first, "service", "create", "-d", "--name", "canary", *note, "web")
    scenarios.lock(cluster)
    cluster.swarm(first, "join-token", "--rotate", "manager")
    found = secrecy.planted(cluster, first)
    assert any(place.startswith("/var/lib/swarm/") for place in found), "a planted file was not found"
    assert any(place.endswith("/environ") for place in found), "a planted variable was not found"
    broken = secrecy.check(cluster, {**secrecy.secrets_of(cluster), "a label": canary})
    assert not broken, broken
    cluster.swarm(first, "update", "--autolock=false")
    cluster.swarm(first, "service", "rm", "canary")
    scenarios.wait_locks(cluster, "open")


def _state(cluster: Cluster, host: str) -> str:
    found: str = cluster.get("/info", host)["Swarm"]["LocalNodeState"]
    return found


DRILLS: Mapping[str, Callable[[Ground], None]] = MappingProxyType(
    {
        drill.__name__: drill
        for drill in (
            lossy_network,
            long_lines,
            narrow_lines,
            slow_disk,
            dying_disk,
            damaged_log,
            damaged_database,
            wrong_clock,
            expired_by_the_clock,
            all_locked,
            nothing_lies_open,
        )
    }
)


def drill(
    name: str,
    archive: Path,
    chance: random.Random,
    directory: Path,
    say: Callable[[str], None],
    until: float = float("inf"),
) -> list[str]:
    """The drills in an order by chance, until all are done or the time is over. What was not kept."""
    broken: list[str] = []
    left = chance.sample(sorted(DRILLS), len(DRILLS))
    while left and CLOCK.monotonic() < until:
        with chaos_lab.chaos_lab(name) as lab:
            cluster = Cluster(lab)
            cluster.load(archive)
            chaos_lab.found(cluster, managers=3)
            ground = Ground(cluster, chance, LONG_S if until == float("inf") else WATCH_S)
            while left and CLOCK.monotonic() < until and not broken_now(ground, left.pop(), say, broken):
                continue
            if broken:
                (directory / "drills").mkdir(exist_ok=True)
                chaos_lab.keep_logs(lab, directory / "drills")
    return broken


def broken_now(ground: Ground, name: str, say: Callable[[str], None], broken: list[str]) -> bool:
    """Do one drill; whether it has failed, and its lab is not to be used again."""
    began = CLOCK.monotonic()
    try:
        DRILLS[name](ground)
        chaos_lab.wait_settled(ground.cluster, len(ground.cluster.hosts))
    except (AssertionError, SwarmError, subprocess.TimeoutExpired) as error:
        broken.append(f"{name}: {error}")
        say(f"  {name}: {error}")
        return True
    say(f"  {name}: kept, {CLOCK.monotonic() - began:.0f} s")
    return False
