from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from swarm.base.ids import NodeID, SequentialIds, ServiceID
from swarm.manager.orchestrator.reaper import plan_reaper
from swarm.manager.orchestrator.restart import Restart, plan_restart
from swarm.manager.orchestrator.service import list_service_ids, plan_service
from swarm.model.objects import Node, NodeStatus, Service, Task, TaskStatus
from swarm.model.plan import Create
from swarm.model.specs import ReplicatedMode, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.task_state import TaskState
from swarm.model.types import Meta, NodeState, RestartPolicy, Version
from swarm.model.view import Objects

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = ServiceID("web")


def service(replicas: int = 1, policy: RestartPolicy | None = None) -> Service:
    return Service(
        id=WEB,
        spec=ServiceSpec(
            name="web",
            mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
            task_template=TaskSpec(restart_policy=policy),
        ),
    )


def running(web: Service, count: int) -> list[Task]:
    """Its tasks as the first plan makes them, all running on one node."""
    plan = plan_service(Objects([web]), WEB, NOW, SequentialIds())
    tasks = [op.object for op in plan.ops if isinstance(op, Create) and isinstance(op.object, Task)]
    assert len(tasks) == count
    status = TaskStatus(state=TaskState.RUNNING, timestamp=NOW)
    return [replace(task, node_id=NodeID("n1"), status=status) for task in tasks]


def test_five_hundred_tasks_are_planned_in_a_moment() -> None:
    web = service(500)
    node = Node(id=NodeID("n1"), status=NodeStatus(state=NodeState.READY))
    objects = Objects([web, node, *running(web, 500)])
    took = []
    for _ in range(5):
        started = time.process_time()
        assert plan_service(objects, WEB, NOW, SequentialIds()).ops == ()
        took.append(time.process_time() - started)
    assert min(took) < 0.02


def test_a_task_is_made_from_the_service_as_it_is() -> None:
    web = replace(service(), spec_version=Version(index=7))
    (task,) = running(web, 1)
    assert (task.spec, task.spec_version, task.service_name) == (
        web.spec.task_template,
        web.spec_version,
        "web",
    )
    assert task.meta.created_at == NOW
    assert task.name == f"web.1.{task.id}"


def test_a_service_of_which_only_tasks_are_left_is_still_planned() -> None:
    web = service(2)
    objects = Objects(running(web, 2))
    assert list_service_ids(objects) == (WEB,)
    plan = plan_service(objects, WEB, NOW, SequentialIds())
    assert [op.object.desired_state for op in plan.ops if isinstance(op.object, Task)] == [
        TaskState.REMOVE
    ] * 2


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_hosts_wrong_clock_moves_no_delay(skew: timedelta) -> None:
    web = service()
    (task,) = running(web, 1)
    failed = replace(task, status=TaskStatus(state=TaskState.FAILED, timestamp=NOW + skew))
    assert plan_restart([failed], web, NOW) == Restart(delay=timedelta(seconds=0.5))


def test_attempts_at_an_older_template_do_not_count() -> None:
    web = replace(service(policy=RestartPolicy(max_attempts=1)), spec_version=Version(index=2))
    (task,) = running(web, 1)
    dead = TaskStatus(state=TaskState.FAILED, timestamp=NOW)
    old = [replace(task, status=dead, spec_version=Version(index=1)) for _ in range(3)]
    assert plan_restart([*old, replace(task, status=dead)], web, NOW) is not None
    assert plan_restart([replace(task, status=dead)] * 3, web, NOW) is None


@pytest.mark.parametrize(
    ("desired", "state", "goes"),
    [
        (TaskState.REMOVE, TaskState.NEW, True),
        (TaskState.REMOVE, TaskState.PENDING, True),
        (TaskState.REMOVE, TaskState.ASSIGNED, False),
        (TaskState.REMOVE, TaskState.RUNNING, False),
        (TaskState.REMOVE, TaskState.SHUTDOWN, True),
        (TaskState.REMOVE, TaskState.ORPHANED, True),
        (TaskState.SHUTDOWN, TaskState.SHUTDOWN, False),
        (TaskState.RUNNING, TaskState.FAILED, False),
    ],
)
def test_which_records_the_reaper_takes(desired: TaskState, state: TaskState, goes: bool) -> None:
    (task,) = running(service(), 1)
    task = replace(task, desired_state=desired, status=TaskStatus(state=state), meta=Meta())
    node = Node(id=NodeID("n1"), status=NodeStatus(state=NodeState.READY))
    assert bool(plan_reaper(Objects([service(), node, task])).ops) is goes


def test_a_clock_that_is_set_back_delays_no_restart() -> None:
    web = service(1)
    (task,) = running(web, 1)
    waiting = replace(
        task,
        meta=Meta(created_at=NOW),
        status=TaskStatus(state=TaskState.READY),
        desired_state=TaskState.READY,
        start_after=NOW + timedelta(seconds=5),
    )
    node = Node(id=NodeID("n1"), status=NodeStatus(state=NodeState.READY))
    objects = Objects([web, node, waiting])
    assert plan_service(objects, WEB, NOW + timedelta(seconds=1), SequentialIds()).ops == ()
    (op,) = plan_service(objects, WEB, NOW - timedelta(hours=1), SequentialIds()).ops
    assert isinstance(op.object, Task)
    assert op.object.desired_state is TaskState.RUNNING
