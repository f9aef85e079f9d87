"""A scenario with something happening at one failpoint, many times over.

In: points, an archive of the image `web`. Out: problems, and which points were passed. A lab serves as many
points as come through; a problem ends its lab, whose logs then tell of that point last. Invariant: after the
fault nobody does anything but ask again.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.lab.host import log_path
from tests.chaos import chaos_lab
from tests.chaos.points import GO_ON, MANAGER, NEWCOMER, WORKER, Point
from tests.chaos.scenarios import SCENARIOS, found_pair, lock
from tests.integration.cluster import Cluster

CLOCK = SystemClock()
PAUSE_S = 8.0
"""Longer than any lease: meanwhile the others take the host for dead."""
PROBLEMS_ENOUGH = 5
AHEAD = 40
"""So far the order may be left to save a lab."""
OF_THREE = ("locking", "unlocking")
SMALL_QUOTA = "16M"


def try_at(
    cluster: Cluster, archive: Path, point: Point, say: Callable[[str], None]
) -> tuple[list[str], bool]:
    """What broke, and whether the point was passed."""
    began = CLOCK.monotonic()
    if point.scenario == "unlocking":
        lock(cluster)
    before = _hits(cluster, point)
    arm(cluster, point)
    with _going_on(cluster, point, before):
        broken = [f"{point} on {point.host}: {b}" for b in _play(cluster, archive, point)]
    passed = _hits(cluster, point) > before
    if not broken:
        chaos_lab.restart_daemon(cluster, point.host)  # what was not passed must not happen to the next
        cluster.wait_daemon(point.host)
    state = "passed" if passed else "not passed"
    say(f"  {point} on {point.host}: {'; '.join(broken) or state}, {CLOCK.monotonic() - began:.1f} s")
    return broken, passed


def arm(cluster: Cluster, point: Point) -> None:
    """From its next start on, which is now, the host's swarmd meets its fate at the point."""
    cluster.output(point.host, "rm", "-f", GO_ON)
    done = cluster.lab.exec(point.host, ["tee", chaos_lab.FAILPOINTS], feed=str(point))
    assert done.returncode == 0, done.stderr
    chaos_lab.restart_daemon(cluster, point.host)
    cluster.wait_until(lambda: not _exists(cluster, point.host, chaos_lab.FAILPOINTS), "it starts again")


def _play(cluster: Cluster, archive: Path, point: Point) -> list[str]:
    try:
        SCENARIOS[point.scenario](cluster, archive)
        cluster.wait_until(lambda: not cluster.get("/tasks"), "no task is left", 60.0)
        if point.scenario in OF_THREE:
            return []
        cluster.wait_clean(MANAGER, WORKER)
        cluster.wait_clean(NEWCOMER, of_member=True)
    except (AssertionError, SwarmError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    return []


@contextmanager
def _going_on(cluster: Cluster, point: Point, before: int) -> Iterator[None]:
    """While the block runs, a pause at the point ends some time after it began; at the end, in any case."""
    ended = threading.Event()

    def release() -> None:
        while _hits(cluster, point) == before and not ended.wait(0.2):
            pass
        ended.wait(PAUSE_S)
        cluster.run(point.host, "touch", GO_ON)

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _hits(cluster: Cluster, point: Point) -> int:
    said = log_path(cluster.lab.name, point.host).read_text(errors="replace")
    return said.count(f"failpoint {point.name} hit {point.hit}:")


def _exists(cluster: Cluster, host: str, path: str) -> bool:
    return cluster.run(host, "test", "-e", path).returncode == 0


# --- many ------------------------------------------------------------------------------------------------


class Sweep:
    """Points one after the other, until all are done or the time is over."""

    def __init__(self, name: str, archive: Path, directory: Path, say: Callable[[str], None]) -> None:
        self._name = name
        self._archive = archive
        self._directory = directory
        self._say = say
        self.missed: list[Point] = []
        self.done = 0
        self.broken: list[str] = []

    def run(self, points: Iterable[Point], until: float = float("inf")) -> None:
        """`until` in the clock's monotonic seconds."""
        left = list(points)
        while left and CLOCK.monotonic() < until and len(self.broken) < PROBLEMS_ENOUGH:
            of_three = left[0].scenario in OF_THREE
            alike = [p for p in left[:AHEAD] if (p.scenario in OF_THREE) == of_three]
            self._in_one_lab(alike, left, until, of_three=of_three)

    def _in_one_lab(
        self, points: Sequence[Point], left: list[Point], until: float, *, of_three: bool
    ) -> None:
        with chaos_lab.chaos_lab(self._name, quota=SMALL_QUOTA) as lab:
            cluster = Cluster(lab)
            if of_three:
                cluster.load(self._archive)
                chaos_lab.found(cluster, managers=3)
            else:
                found_pair(cluster, self._archive)
            for point in points:
                if CLOCK.monotonic() > until:
                    return
                left.remove(point)
                if not self._one(cluster, point):
                    return

    def _one(self, cluster: Cluster, point: Point) -> bool:
        """Whether the lab can be used again."""
        broken, passed = try_at(cluster, self._archive, point, self._say)
        self.done += 1
        if not passed:
            self.missed.append(point)
        if broken:  # what is left of it would spoil the next
            self.broken += broken
            kept = self._directory / f"{point.name}-{point.hit}-{point.action.split(':')[0]}"
            kept.mkdir(parents=True, exist_ok=True)
            chaos_lab.keep_logs(cluster.lab, kept)
            return False
        return True


def sweep(
    name: str,
    archive: Path,
    points: Iterable[Point],
    directory: Path,
    say: Callable[[str], None],
    until: float = float("inf"),
) -> list[str]:
    """What broke."""
    work = Sweep(name, archive, directory, say)
    work.run(points, until)
    say(f"  {work.done} tried; not passed: {', '.join(map(str, work.missed)) or 'none'}")
    return work.broken
