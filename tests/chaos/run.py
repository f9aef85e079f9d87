"""A run of the chaos harness: failpoints, drills, and faults at random while clients work.

In: a seed and a time. Out: problems, none when all is well; seed, history and the hosts' logs stay in a
folder. Invariant: the same seed asks for the same faults in the same order, and the same requests of each
client.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.lab import demo_image
from tests.chaos import chaos_lab, invariants, secrecy
from tests.chaos.chaos_lab import chaos_lab as make_lab
from tests.chaos.clients import ChaosClient, Keys, audited, working
from tests.chaos.drills import drill
from tests.chaos.failpoints import sweep
from tests.chaos.history import Recorder, load
from tests.chaos.linearizable import Verdict, check
from tests.chaos.nemesis import Nemesis, torment
from tests.chaos.points import all_points, in_order
from tests.chaos.power_loss import lose_power
from tests.chaos.watches import check_watches, watched
from tests.chaos.watches import load as load_watch
from tests.integration.cluster import Cluster

CLOCK = SystemClock()
CLIENTS = 3
CALM_S = 1.5
SETTLE_S = 60.0
"""Thirty seconds, and as much for a machine that is busy with other things."""
SHARE_OF_POINTS = 0.4
SHARE_OF_DRILLS = 0.7
"""Of the time: until then failpoints, then drills; the rest is for faults at random."""
SOAK_LEAST_S = 30.0
SOAK_ALL_S = 600.0
RUNS = Path(tempfile.gettempdir()) / "swarm-chaos"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    seed: int
    seconds: float
    directory: Path
    small: str = ""
    """The host with the small disk."""
    hold_s: tuple[float, float] = (2.0, 8.0)
    say: Say = print


def soak(cluster: Cluster, campaign: Campaign) -> list[str]:
    """Faults and clients for a time, then peace, then the checks."""
    chance = random.Random(campaign.seed)
    broken: list[str] = []
    path = campaign.directory / "history.jsonl"
    recorder = Recorder(path)
    keys = Keys()
    clients = [ChaosClient(cluster, recorder, keys, f"{campaign.seed}:{n}") for n in range(CLIENTS)]
    nemesis = Nemesis(cluster, chance, campaign.small)
    try:
        ends = CLOCK.monotonic() + campaign.seconds
        auditing = audited(cluster, random.Random(campaign.seed + 1), broken, every_s=0.5)
        with working(clients, pause_s=0.1), auditing, watched(cluster, campaign.directory):
            while CLOCK.monotonic() < ends:
                with torment(nemesis, recorder.fault, chance.uniform(*campaign.hold_s)) as name:
                    campaign.say(f"  {name}")
                broken += invariants.check_containers(chaos_lab.running_containers(cluster))
                time.sleep(CALM_S)
        broken += settle(cluster)
        read_everything(cluster, recorder, path)
    finally:
        recorder.close()
    broken += secrecy.check(cluster, secrecy.secrets_of(cluster))
    return broken + judge(path, campaign.say) + judge_watches(campaign.directory, campaign.say)


def judge_watches(directory: Path, say: Say) -> list[str]:
    """I7."""
    found = {path.stem: load_watch(path) for path in sorted(directory.glob("*.watch"))}
    counts = {name: sum(len(r.events) for r in responses) for name, responses in found.items()}
    say(f"  events by watch: {counts}")
    return check_watches(found)


def settle(cluster: Cluster) -> list[str]:
    """I1, I5, I8, I9 once faults are over."""
    try:
        chaos_lab.wait_settled(cluster, len(cluster.hosts), SETTLE_S)
    except AssertionError as error:
        return [f"I5: {error}"]
    deadline = CLOCK.monotonic() + SETTLE_S
    while True:
        try:
            broken = _at_rest(cluster)
        except SwarmError as error:
            broken = [f"I5: {error}"]
        if not broken or CLOCK.monotonic() > deadline:
            return broken
        time.sleep(0.2)


def _at_rest(cluster: Cluster) -> list[str]:
    services, tasks = cluster.get("/services"), cluster.get("/tasks")
    containers = chaos_lab.running_containers(cluster)
    broken = invariants.check_identity(tasks, services)
    broken += invariants.check_converged(services, tasks)
    broken += invariants.check_addresses(tasks)
    broken += invariants.check_containers(containers)
    alive = {t["ID"] for t in tasks if t["Status"]["State"] == "running"}
    strays = {task_id for ids in containers.values() for task_id in ids} - alive
    return broken + [f"I8: a container runs for task {task_id}, which does not" for task_id in sorted(strays)]


def read_everything(cluster: Cluster, recorder: Recorder, path: Path) -> None:
    """Every key is read once more, through every manager (I6)."""
    reader = ChaosClient(cluster, recorder, Keys(), "last")
    for key in sorted({operation.key for operation in load(path)}):
        for host in cluster.hosts:
            with cluster.client(host) as client:
                reader.read(client, key)


def judge(path: Path, say: Say) -> list[str]:
    history = load(path)
    verdicts = check(history)
    counts = {outcome: sum(o.outcome == outcome for o in history) for outcome in ("ok", "fail", "info")}
    say(f"  {len(history)} operations on {len(verdicts)} keys: {counts}")
    return [f"I6: the history of {k} is {v}" for k, v in verdicts.items() if v is Verdict.VIOLATION]


def tidy(cluster: Cluster) -> list[str]:
    """Remove all services; I10: nothing of them is left."""

    def empty() -> bool:
        for service in cluster.get("/services"):
            with cluster.client() as client:
                client.delete(f"/services/{service['ID']}")
        return not cluster.get("/tasks")

    try:
        cluster.wait_until(empty, "no service, no task", SETTLE_S)
        cluster.wait_clean()
    except AssertionError as error:
        return [f"I10: {error}"]
    return []


def run(seed: int, minutes: float, name: str = "chaos", say: Say = print) -> list[str]:
    """Failpoints, drills and faults at random in so many minutes; without a limit when it is 0.

    Returns the problems. A part that fails does not keep the next from being tried.
    """
    directory = RUNS / str(seed)
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / "web.tar"
    demo_image.build("web", archive)
    say(f"CHAOS_SEED={seed} CHAOS_MINUTES={minutes:g}; history and logs: {directory}")
    began = CLOCK.monotonic()

    def until(share: float) -> float:
        return began + minutes * 60 * share if minutes else float("inf")

    points = in_order(all_points(), random.Random(seed))
    say(f"failpoints, {len(points)} in all")
    broken = sweep(f"{name}-f", archive, points, directory, say, until(SHARE_OF_POINTS))
    say("drills")
    broken += lose_power(f"{name}-p", archive, random.Random(seed), directory, say)
    broken += drill(f"{name}-d", archive, random.Random(seed), directory, say, until(SHARE_OF_DRILLS))
    seconds = max(minutes * 60 - (CLOCK.monotonic() - began), SOAK_LEAST_S) if minutes else SOAK_ALL_S
    say(f"faults at random, {seconds:.0f} s")
    return broken + soak_lab(f"{name}-s", archive, directory, seed, seconds, say)


def soak_lab(name: str, archive: Path, directory: Path, seed: int, seconds: float, say: Say) -> list[str]:
    """`soak` in a lab of its own, and nothing left over."""
    with make_lab(name, small="h2") as lab:
        cluster = Cluster(lab)
        try:
            cluster.load(archive)
            chaos_lab.found(cluster, managers=3)
            campaign = Campaign(seed=seed, seconds=seconds, directory=directory, small="h2", say=say)
            return soak(cluster, campaign) + tidy(cluster)
        finally:
            chaos_lab.keep_logs(lab, directory)


def main() -> int:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    broken = run(seed, float(os.environ.get("CHAOS_MINUTES") or 10), say=partial(print, flush=True))
    for sentence in broken:
        print(sentence)
    print(f"{len(broken)} problems" if broken else "no problem", f"(CHAOS_SEED={seed} replays this)")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
