"""The order in which nodes are taken: spread a service, then spread everything.

Invariant: among nodes that pass the filters the one with the fewest tasks of the service wins, except that a
node on which this release has just failed again and again comes last.
Source: SwarmKit manager/scheduler/scheduler.go (nodeLess), which has no term for CPU or memory either.
"""

from __future__ import annotations

from datetime import datetime
from random import Random

from swarm.scheduler.cluster import FAILURES_TO_AVOID, NodeInfo
from swarm.scheduler.filters import Requirements

Rank = tuple[int, int, int, float]


def rank(wanted: Requirements, info: NodeInfo, now: datetime, rng: Random) -> Rank:
    """Lower is better. Ties fall to `rng`, so that many small services do not all land on one node."""
    failures = info.recent_failures(wanted.release, now)
    return (
        failures if failures >= FAILURES_TO_AVOID else 0,
        info.active_by_service[wanted.release[0]],
        info.active,
        rng.random(),
    )
