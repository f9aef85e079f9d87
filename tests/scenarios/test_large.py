from __future__ import annotations

from collections import Counter

from swarm.model.objects import Task
from swarm.model.task_state import TaskState
from tests.scenarios.large import NODES, REPLICAS, SERVICES, cpu_s_to_settle, large_cluster, lose_nodes

LIMIT_S = 20.0


def test_ten_thousand_tasks_on_a_hundred_nodes() -> None:
    cluster = large_cluster()
    assert cpu_s_to_settle(cluster) < LIMIT_S
    counts = Counter(task.node_id for task in cluster.objects.list(Task))
    assert set(counts.values()) == {SERVICES * REPLICAS // NODES}
    lose_nodes(cluster, 10)
    assert cpu_s_to_settle(cluster) < LIMIT_S
    running = [t for t in cluster.objects.list(Task) if t.desired_state <= TaskState.RUNNING]
    assert len({task.node_id for task in running}) == NODES - 10
