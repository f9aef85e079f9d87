"""What deciding costs the leader: a large cluster without machines or store, in processor time."""

from __future__ import annotations

from collections.abc import Iterator

from bench.cluster import Cluster
from bench.report import Figure
from tests.scenarios.large import NODES, REPLICAS, SERVICES, cpu_s_to_settle, large_cluster, lose_nodes

AT_MOST_S = 20.0


def measure(_: Cluster, *, quick: bool) -> Iterator[Figure]:
    del quick
    cluster = large_cluster()
    tasks = SERVICES * REPLICAS
    yield Figure(
        name=f"{tasks:,} tasks on {NODES} nodes, decided",
        measured=cpu_s_to_settle(cluster),
        unit="s",
        at_most=AT_MOST_S,
    )
    lose_nodes(cluster, NODES // 10)
    yield Figure(name="a tenth of the nodes lost", measured=cpu_s_to_settle(cluster), unit="s")
