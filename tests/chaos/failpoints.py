"""Scenario S with a kill -9 at one failpoint: services are made, scaled and removed, a node joins, is
promoted, demoted and leaves; somewhere on the way one swarmd dies, is started again, and all ends as asked.

In: a lab and an archive of the image `web`; points. Out: problems, and which points were passed. Invariant:
after the kill nobody does anything but ask again, as a user would whose connection broke.
"""

from __future__ import annotations

import ast
import random
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from tests.chaos import chaos_lab, invariants
from tests.integration.cluster import Cluster

SOURCE = Path(__file__).parents[2] / "swarm"
CLOCK = SystemClock()
HITS = (1, 2, 3)
INSIST_S = 60.0
ASK_AGAIN_S = 0.3
MANAGER, WORKER, NEWCOMER = "h1", "h2", "h3"
_PLACES = {
    MANAGER: ("store.", "leader.", "dispatcher.", "members.", "join.", "node.init."),
    WORKER: ("agent.", "task.", "container.", "journal.", "images."),
}


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    hit: int

    @property
    def host(self) -> str:
        """Where the scenario passes the point."""
        return next((h for h, starts in _PLACES.items() if self.name.startswith(starts)), NEWCOMER)


def names_in_code() -> list[str]:
    """Every failpoint's name, as often as it is used."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "failpoint.py" or "gen" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: not a literal"
                found.append(argument.value)
    return found


def all_points() -> list[Point]:
    return [Point(name, hit) for name in names_in_code() for hit in HITS]


# --- one run ---------------------------------------------------------------------------------------------


def arm(cluster: Cluster, point: Point) -> None:
    """From its next start on, the host's swarmd dies at the point."""
    armed = f"{point.name}:{point.hit}:kill9"
    done = cluster.lab.exec(point.host, ["tee", chaos_lab.FAILPOINTS], feed=armed)
    assert done.returncode == 0, done.stderr
    chaos_lab.restart_daemon(cluster, point.host)
    cluster.wait_until(lambda: not _exists(cluster, point.host, chaos_lab.FAILPOINTS), "it starts again")


def was_hit(cluster: Cluster, point: Point) -> bool:
    return f"failpoint {point.name} hit {point.hit}:" in cluster.lab.log(point.host)


def scenario(cluster: Cluster, archive: Path) -> list[str]:
    """Scenario S; the manager and the worker are in a cluster, the newcomer is in none, before and after."""
    try:
        _images(cluster, archive)
        _services(cluster)
        _membership(cluster)
        cluster.wait_until(lambda: not cluster.get("/tasks"), "no task is left", INSIST_S)
        cluster.wait_clean(MANAGER, WORKER)
        cluster.wait_clean(NEWCOMER, of_member=True)
    except (AssertionError, SwarmError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    return []


def found_pair(cluster: Cluster, archive: Path) -> None:
    """A cluster of the manager and the worker."""
    cluster.load(archive)
    address = cluster.lab.address(MANAGER)
    insist(cluster, MANAGER, ("init", "--advertise-addr", address), lambda: _is_in(cluster, MANAGER))
    _join(cluster, WORKER, "worker")


def insist(cluster: Cluster, host: str, arguments: Iterable[str], done: Callable[[], object]) -> None:
    """Ask until it is done; what the command says meanwhile is kept for the complaint."""
    command = ("swarm", *arguments)
    deadline = CLOCK.monotonic() + INSIST_S
    while True:
        answer = cluster.run(host, *command, timeout=INSIST_S)
        said = answer.stderr.strip() or answer.stdout.strip()
        assert "Traceback" not in said, f"{' '.join(command)}: {said}"
        for _ in range(10):
            try:
                if done():
                    return
            except (SwarmError, OSError) as error:
                said = f"{said}; {error}"
            time.sleep(ASK_AGAIN_S)
        assert CLOCK.monotonic() < deadline, (
            f"not within {INSIST_S:g} s: {' '.join(command)} on {host}: {said}"
        )


def _images(cluster: Cluster, archive: Path) -> None:
    def loaded() -> bool:
        return any("web:latest" in (i["RepoTags"] or ()) for i in cluster.get("/images/json", WORKER))

    insist(cluster, WORKER, ("image", "load", "-i", str(archive)), loaded)


def _services(cluster: Cluster) -> None:
    create = ("service", "create", "-d", "--name", "s", "--replicas", "3", "--stop-grace-period", "1s")
    insist(cluster, MANAGER, (*create, "-p", "8080:80", "web"), lambda: _replicas(cluster) == 3)
    for count in (3, 5, 2):
        scale = ("service", "scale", "-d", f"s={count}")
        insist(cluster, MANAGER, scale, lambda count=count: _replicas(cluster) == count)
        cluster.wait_running("s", count, INSIST_S)
        broken = invariants.check_containers(chaos_lab.running_containers(cluster))
        broken += invariants.check_addresses(cluster.get("/tasks"))
        assert not broken, broken
    insist(cluster, MANAGER, ("service", "rm", "s"), lambda: _replicas(cluster) is None)


def _membership(cluster: Cluster) -> None:
    _join(cluster, NEWCOMER, "worker")
    insist(cluster, MANAGER, ("node", "promote", NEWCOMER), lambda: _is_manager(cluster))
    insist(cluster, MANAGER, ("node", "demote", NEWCOMER), lambda: _is_worker(cluster))
    _leave(cluster)
    _join(cluster, NEWCOMER, "manager")
    cluster.wait_until(lambda: _is_manager(cluster), "the newcomer is a manager", INSIST_S)
    _leave(cluster)


def _join(cluster: Cluster, host: str, role: str) -> None:
    def token() -> str:
        return cluster.run(MANAGER, "swarm", "join-token", "-q", role).stdout.strip()

    secret = cluster.wait_until(token, f"the {role}'s join token", INSIST_S)
    address = f"{cluster.lab.address(MANAGER)}:2377"
    insist(cluster, host, ("join", "--token", secret, address), lambda: _is_in(cluster, host))


def _leave(cluster: Cluster) -> None:
    insist(cluster, NEWCOMER, ("leave", "--force"), lambda: _state(cluster, NEWCOMER) == "inactive")
    insist(cluster, MANAGER, ("node", "rm", "--force", NEWCOMER), lambda: not _node(cluster))


def _replicas(cluster: Cluster) -> int | None:
    found = [s for s in cluster.get("/services", MANAGER) if s["Spec"]["Name"] == "s"]
    return found[0]["Spec"]["Mode"]["Replicated"]["Replicas"] if found else None


def _node(cluster: Cluster) -> dict | None:
    found = [n for n in cluster.get("/nodes", MANAGER) if n["Description"]["Hostname"] == NEWCOMER]
    return found[0] if found else None


def _is_manager(cluster: Cluster) -> bool:
    """As both managers see it."""
    node = _node(cluster)
    reachable = node is not None and (node.get("ManagerStatus") or {}).get("Reachability") == "reachable"
    return reachable and len(cluster.get("/nodes", NEWCOMER)) == len(cluster.hosts)


def _is_worker(cluster: Cluster) -> bool:
    node = _node(cluster)
    is_told = not cluster.get("/info", NEWCOMER)["Swarm"]["ControlAvailable"]
    return node is not None and node["Spec"]["Role"] == "worker" and "ManagerStatus" not in node and is_told


def _is_in(cluster: Cluster, host: str) -> bool:
    return _state(cluster, host) == "active" and any(
        n["Description"]["Hostname"] == host and n["Status"]["State"] == "ready"
        for n in cluster.get("/nodes", MANAGER)
    )


def _state(cluster: Cluster, host: str) -> str:
    return cluster.get("/info", host)["Swarm"]["LocalNodeState"]


def _exists(cluster: Cluster, host: str, path: str) -> bool:
    return cluster.run(host, "test", "-e", path).returncode == 0


# --- many runs -------------------------------------------------------------------------------------------


def sweep(
    name: str, archive: Path, points: Iterable[Point], directory: Path, say: Callable[[str], None]
) -> list[str]:
    """Scenario S once for each point. Stops at the first problem, so that its lab's logs tell of it alone."""
    missed: list[str] = []
    founding = [p for p in points if p.name.startswith("node.init.")]
    for batch in (*([p] for p in founding), [p for p in points if p not in founding]):
        broken = _batch(name, archive, batch, say, missed, directory)
        if broken:
            return broken
    say(f"  {len(missed)} points were not passed: {', '.join(missed)}")
    return []


def _batch(
    name: str,
    archive: Path,
    points: list[Point],
    say: Callable[[str], None],
    missed: list[str],
    directory: Path,
) -> list[str]:
    with chaos_lab.chaos_lab(name) as lab:
        cluster = Cluster(lab)
        try:
            for point in points:
                if point.name.startswith("node.init."):
                    arm(cluster, point)
                if not _is_in(cluster, MANAGER):
                    found_pair(cluster, archive)
                broken = kill_at(cluster, archive, point, say)
                if broken:
                    return broken
                if not was_hit(cluster, point):
                    missed.append(f"{point.name}:{point.hit}")
        finally:
            chaos_lab.keep_logs(lab, directory)
    return []


def kill_at(cluster: Cluster, archive: Path, point: Point, say: Callable[[str], None]) -> list[str]:
    began = CLOCK.monotonic()
    if not point.name.startswith("node.init."):
        arm(cluster, point)
    broken = [f"killed at {point.name}:{point.hit} on {point.host}: {b}" for b in scenario(cluster, archive)]
    state = "killed" if was_hit(cluster, point) else "not passed"
    say(f"  {point.name}:{point.hit} on {point.host}: {state}, {CLOCK.monotonic() - began:.1f} s")
    return broken


def sample(chance: random.Random, count: int) -> list[Point]:
    """Points at their first hit, chosen by chance."""
    names = sorted(n for n in names_in_code() if not n.startswith(("node.init.", "leader.resigning")))
    return [Point(name, 1) for name in chance.sample(names, count)]
