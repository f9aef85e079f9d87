"""Bounds in size and time; what the scheduler decides is told by the scenarios."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from swarm.base.ids import NodeID, ServiceID, TaskID
from swarm.model.objects import Node, NodeStatus, Task, TaskStatus
from swarm.model.specs import TaskSpec
from swarm.model.task_state import TaskState
from swarm.model.types import (
    Endpoint,
    NodeDescription,
    NodeState,
    Placement,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
)
from swarm.model.view import Objects
from swarm.scheduler.cluster import FAILURE_MEMORY, Accounting, NodeInfo, release_of
from swarm.scheduler.schedule import NEVER_ASSIGNED, plan_scheduling

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESERVING = TaskSpec(
    resources=ResourceRequirements(reservations=Resources(nano_cpus=1_000_000_000, memory_bytes=1 << 20))
)


def node(number: int) -> Node:
    return Node(
        id=NodeID(f"n{number:03}"),
        description=NodeDescription(resources=Resources(nano_cpus=9_000_000_000, memory_bytes=1 << 30)),
        status=NodeStatus(state=NodeState.READY),
    )


def task(number: int, service: int = 0, state: TaskState = TaskState.PENDING, **fields: object) -> Task:
    return Task(
        id=TaskID(f"t{number:05}"),
        service_id=ServiceID(f"s{service}"),
        slot=number,
        spec=RESERVING,
        status=TaskStatus(state=state, timestamp=NOW),
        **fields,  # type: ignore[arg-type]
    )


def assigned(objects: Objects, accounting: Accounting | None = None) -> Counter[str]:
    plan = plan_scheduling(objects, NOW, Random(1), accounting)
    tasks = [op.object for op in plan.ops if isinstance(op.object, Task)]
    return Counter(t.node_id for t in tasks if t.status.state is TaskState.ASSIGNED)


@pytest.mark.parametrize("services", [1, 100])
def test_a_thousand_tasks_on_a_hundred_nodes(services: int) -> None:
    objects = Objects([*map(node, range(100)), *(task(i, i % services) for i in range(1000))])
    started = time.process_time()
    counts = assigned(objects)
    assert time.process_time() - started < 0.5
    assert counts.total() == 900  # nine of one core each fit on a node
    assert max(counts.values()) == 9


def test_the_callers_accounting_is_left_as_it_was() -> None:
    objects = Objects([node(1), *(task(i) for i in range(20))])
    accounting = Accounting.of(objects)
    assert assigned(objects, accounting).total() == 9
    assert accounting == Accounting.of(objects)


def test_one_that_nobody_wants_any_more_is_shut_down_unassigned() -> None:
    objects = Objects([task(1, state=TaskState.NEW, desired_state=TaskState.SHUTDOWN)])
    (op,) = plan_scheduling(objects, NOW, Random(1)).ops
    assert isinstance(op.object, Task)
    assert op.object.status == TaskStatus(state=TaskState.SHUTDOWN, timestamp=NOW, message=NEVER_ASSIGNED)
    objects = Objects([task(1, desired_state=TaskState.REMOVE)])
    assert plan_scheduling(objects, NOW, Random(1)).ops == ()


def test_one_that_is_being_stopped_still_holds_what_it_has() -> None:
    stopping = task(
        1,
        state=TaskState.RUNNING,
        node_id=NodeID("n001"),
        desired_state=TaskState.SHUTDOWN,
        endpoint=Endpoint(ports=(PortConfig(published_port=80, publish_mode=PublishMode.HOST),)),
    )
    found = Accounting.of(Objects([node(1), stopping])).get(NodeID("n001"))
    assert found is not None
    assert found.reserved_nano_cpus == 1_000_000_000
    assert found.host_ports.total() == 1
    assert found.active == 0


def test_a_port_that_two_tasks_share_for_a_moment_is_taken_until_both_are_gone() -> None:
    port = PortConfig(published_port=80, publish_mode=PublishMode.HOST)
    both = [
        task(n, state=TaskState.RUNNING, node_id=NodeID("n001"), endpoint=Endpoint(ports=(port,)))
        for n in (1, 2)
    ]
    accounting = Accounting(both)
    accounting.apply(both[0], None)
    found = accounting.get(NodeID("n001"))
    assert found
    assert found.host_ports.total() == 1
    accounting.apply(both[1], None)
    assert accounting == Accounting()


def test_failures_are_forgotten() -> None:
    failed = task(1, state=TaskState.FAILED, node_id=NodeID("n001"))
    found = NodeInfo()
    found.count(failed, 1)
    assert found.recent_failures(release_of(failed), NOW) == 1
    assert found.recent_failures(release_of(failed), NOW + FAILURE_MEMORY + timedelta(seconds=1)) == 0


def test_a_task_finds_room_beside_the_one_it_replaces_and_no_other_does() -> None:
    ports = Endpoint(ports=(PortConfig(published_port=80, publish_mode=PublishMode.HOST),))
    spec = TaskSpec(placement=Placement(max_replicas=1))
    old = replace(task(1, state=TaskState.RUNNING, node_id=NodeID("n001"), endpoint=ports), spec=spec)
    successor = replace(task(2, endpoint=ports), slot=1, spec=spec)
    newcomer = replace(task(3, endpoint=ports), spec=spec)
    plan = plan_scheduling(Objects([node(1), old, successor, newcomer]), NOW, Random(1))
    found = {op.object.id: op.object for op in plan.ops if isinstance(op.object, Task)}
    assert found[successor.id].status.state is TaskState.ASSIGNED
    assert found[newcomer.id].status.err == "no suitable node (host-mode port already in use on 1 node)"
