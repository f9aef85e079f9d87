"""F13: every manager loses power at once, and with it what it had not synced. What was acknowledged is there.

In: a lab of managers on disks that lose it. Out: problems. Invariant: the test is worth something only if a
store that does not sync would fail it, so each run begins with one: its syncs are swallowed, and what it had
acknowledged must be gone from every disk.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from swarm.base.errors import SwarmError
from tests.chaos import chaos_lab
from tests.chaos.disks import CrashDisks, crash_disks
from tests.chaos.nemesis import Nemesis
from tests.integration.cluster import Cluster

ROUNDS = 3
WRITES = 30


def lose_power(
    name: str, archive: Path, chance: random.Random, directory: Path, say: Callable[[str], None]
) -> list[str]:
    """What was acknowledged and is gone, in rounds; and whether it would have been noticed."""
    with chaos_lab.chaos_lab(name) as lab, crash_disks(lab, directory) as disks:
        cluster = Cluster(lab)
        cluster.load(archive)
        chaos_lab.found(cluster, managers=3)
        try:
            for turn in range(ROUNDS):
                acked = _work(cluster, chance, f"kept{turn}", 1 + chance.randrange(WRITES))
                disks.cut_power(cluster.hosts)
                majority = _holders(cluster, disks, acked[-1:])
                _start(cluster)
                lost = set(acked) - {s["ID"] for s in cluster.get("/services")}
                say(f"  power lost after {len(acked)} writes: {len(lost)} gone; on {majority} of 3 disks")
                if lost or majority < 2:
                    return [
                        f"F13: {len(lost)} acknowledged writes are gone, {majority} disks have the last one"
                    ]
            return _without_syncs(cluster, chance, disks, say)
        except (AssertionError, SwarmError, subprocess.TimeoutExpired) as error:
            return [f"F13: {error}"]
        finally:
            chaos_lab.keep_logs(lab, directory)


def _without_syncs(
    cluster: Cluster, chance: random.Random, disks: CrashDisks, say: Callable[[str], None]
) -> list[str]:
    """The negative control, last: it ruins the stores."""
    nemesis = Nemesis(cluster, chance)
    with ExitStack() as stack:
        for host in cluster.hosts:
            stack.enter_context(nemesis.lying_sync(host))
        acked = _work(cluster, chance, "lost", WRITES)
        disks.cut_power(cluster.hosts)
        left = _holders(cluster, disks, acked)
    say(f"  and without syncs: on {left} of 3 disks")
    return [f"F13: the control failed: what was never synced is on {left} disks"] if left else []


def _work(cluster: Cluster, chance: random.Random, name: str, count: int) -> list[str]:
    """Services made through one manager or another; the ids of those that were acknowledged."""
    acked = []
    for number in range(count):
        spec = {
            "Name": f"{name}-{number}",
            "TaskTemplate": {"ContainerSpec": {"Image": "web"}},
            "Mode": {"Replicated": {"Replicas": 0}},
        }
        with cluster.client(chance.choice(cluster.hosts)) as client:
            acked.append(client.post("/services/create", spec)["ID"])
    return acked


def _holders(cluster: Cluster, disks: CrashDisks, ids: Sequence[str]) -> int:
    """How many disks have every one of them in their log or database, where keys are in the clear."""
    found = 0
    for host in cluster.hosts:
        folder = Path(disks.place(host)) / "etcd/data/member"
        content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        found += all(i.encode() in content for i in ids)
    return found


def _start(cluster: Cluster) -> None:
    cluster.on_all(cluster.lab.start)
    chaos_lab.wait_settled(cluster, len(cluster.hosts))
