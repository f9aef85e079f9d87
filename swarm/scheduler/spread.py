"""The order in which nodes are taken: one service spread (or packed), first over what its preferences name.

Invariant: among nodes that pass the filters the one with the fewest tasks of the service wins, except that a
node on which this release has just failed again and again comes last. Each preference splits the nodes by a
label; a task goes to the part with the fewest tasks of the service, and there to the part that the next
preference makes. Nodes without the label are one part.
Source: SwarmKit manager/scheduler/scheduler.go (nodeLess), decision_tree.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush
from random import Random

from swarm.base.ids import NodeID
from swarm.model.constraint import label_of
from swarm.model.options import Strategy
from swarm.model.types import Placement
from swarm.scheduler.cluster import FAILURES_TO_AVOID, NodeInfo
from swarm.scheduler.filters import Requirements

Rank = tuple[int, int, int, int, float]
SHARES = 10
"""Nodes are told apart by tenths of what is reserved of them: a smaller difference is none."""

Entry = tuple[Rank, NodeID, NodeInfo]


def rank(wanted: Requirements, info: NodeInfo, now: datetime, rng: Random) -> Rank:
    """Lower is better. Ties fall to `rng`, so that many small services do not all land on one node."""
    failures = info.recent_failures(wanted.release, now)
    if failures < FAILURES_TO_AVOID:
        failures = 0
    share = _reserved_tenths(info)
    if wanted.strategy is Strategy.BINPACK:
        return failures, -share, -info.active, 0, 0.0
    return failures, info.active_by_service[wanted.release[0]], share, info.active, rng.random()


def _reserved_tenths(info: NodeInfo) -> int:
    """Of the node's CPU or memory, whichever is scarcer."""
    if info.node is None:
        return 0
    total = info.node.description.resources
    return max(
        SHARES * info.reserved_nano_cpus // max(total.nano_cpus, 1),
        SHARES * info.reserved_memory_bytes // max(total.memory_bytes, 1),
    )


class Branch:
    """Nodes to choose from: by their rank, or first by what the preferences make of them."""

    def __init__(
        self,
        nodes: Sequence[NodeInfo],
        wanted: Requirements,
        ranked: Callable[[NodeInfo], Rank | None],
        labels: Sequence[str] | None = None,
    ) -> None:
        """`ranked` gives a node's rank now, None if it can take no task. `labels` are those of the
        preferences that are still to be looked at."""
        self._ranked = ranked
        self._tasks = 0
        self._entries: list[Entry] = []
        self._parts: list[Branch] = []
        if labels is None:
            labels = _labels(wanted.placement)
        if not labels:
            self._entries = [entry for info in nodes if (entry := self._entry(info))]
            heapify(self._entries)
            return
        for part in _split(nodes, labels[0]):
            branch = Branch(part, wanted, ranked, labels[1:])
            branch._tasks = sum(info.active_by_service[wanted.release[0]] for info in part)
            self._parts.append(branch)

    def take(self, assign: Callable[[NodeInfo], None]) -> bool:
        """Have `assign` take a task for the best node; False if there is none left."""
        if self._parts:
            best = min(self._parts, key=Branch._key)
            best._tasks += 1
            return best.take(assign)
        if not self._entries:
            return False
        info = heappop(self._entries)[2]
        assign(info)
        if entry := self._entry(info):
            heappush(self._entries, entry)
        return True

    def _best(self) -> tuple[Rank, NodeID] | None:
        if self._parts:
            return min(self._parts, key=Branch._key)._best()
        return self._entries[0][:2] if self._entries else None

    def _key(self) -> tuple[bool, int, int, tuple[Rank, NodeID] | None]:
        best = self._best()
        return best is None, best[0][0] if best else 0, self._tasks, best

    def _entry(self, info: NodeInfo) -> Entry | None:
        place = self._ranked(info)
        return (place, info.node.id, info) if place is not None and info.node is not None else None


def _labels(placement: Placement) -> Sequence[str]:
    return [found.spread.spread_descriptor for found in placement.preferences if found.spread]


def _split(nodes: Iterable[NodeInfo], label: str) -> list[list[NodeInfo]]:
    parts: dict[str, list[NodeInfo]] = {}
    for info in nodes:
        if info.node is not None:
            parts.setdefault(label_of(info.node, label) or "", []).append(info)
    return list(parts.values())
