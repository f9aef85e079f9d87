"""Replicas that follow load."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from swarm.base.ids import ServiceID, TaskID
from swarm.manager.orchestrator.autoscale import Usage, plan_autoscale
from swarm.model.objects import ScalingStatus, Service, Task, TaskStatus
from swarm.model.specs import ReplicatedMode, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.task_state import TaskState
from swarm.model.types import Meta, ResourceRequirements, Resources
from swarm.model.view import Objects

NOW = datetime(2026, 11, 21, tzinfo=UTC)
LIMITS = ResourceRequirements(limits=Resources(nano_cpus=500_000_000, memory_bytes=100))


def service(replicas, text="min=2,max=10,cpu=50%", **fields):
    return Service(
        id=ServiceID("s"),
        spec=ServiceSpec(
            name="web",
            labels={"swarm.autoscale": text},
            mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
            task_template=TaskSpec(resources=LIMITS),
        ),
        **fields,
    )


def tasks(count, born=NOW - timedelta(minutes=1)):
    return [
        Task(
            id=TaskID(f"t{n}"),
            service_id=ServiceID("s"),
            slot=n + 1,
            meta=Meta(created_at=born),
            status=TaskStatus(state=TaskState.RUNNING),
        )
        for n in range(count)
    ]


def decide(found, running, usage):
    """The number of replicas decided on, or None."""
    plan = plan_autoscale(Objects([found, *running]), found, usage, NOW)
    return plan.ops[0].object.spec.mode.replicated.replicas if plan.ops else None


def used(running, cpu=0.0, memory=0):
    return {t.id: Usage(nano_cpus=int(cpu * 1e9), memory_bytes=memory) for t in running}


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [(0.25, None), (0.27, None), (0.23, None), (0.5, 8), (0.3, 5), (0.05, 2), (0.0, 2), (50.0, 10)],
)
def test_replicas_follow_the_target(cpu, expected):
    running = tasks(4)
    assert decide(service(4), running, used(running, cpu)) == expected


def test_the_busiest_target_decides():
    running = tasks(4)
    found = service(4, "min=1,max=20,cpu=50%,memory=50%")
    assert decide(found, running, used(running, cpu=0.25, memory=100)) == 8
    assert decide(found, running, used(running, cpu=0.5, memory=10)) == 8


def test_bounds_hold_without_any_figure():
    assert decide(service(1), [], {}) == 2
    assert decide(service(11), [], {}) == 10


def test_what_is_not_known_decides_nothing():
    running = tasks(4)
    assert decide(service(4), running, used(running[:3], 0.5)) is None
    assert decide(service(4), running[:3], used(running, 0.5)) is None
    fresh = tasks(4, NOW - timedelta(seconds=3))
    assert decide(service(4), fresh, used(fresh, 0.5)) is None


def test_between_two_decisions_lies_the_cooldown():
    running = tasks(4)
    found = service(4, scaling=ScalingStatus(at=NOW - timedelta(seconds=20)))
    plan = plan_autoscale(Objects([found, *running]), found, used(running, 0.5), NOW)
    assert not plan.ops
    assert plan.wake_at == NOW + timedelta(seconds=10)
    later = replace(found, scaling=ScalingStatus(at=NOW - timedelta(seconds=30)))
    assert decide(later, running, used(running, 0.5)) == 8


def test_the_reason_is_kept():
    running = tasks(4)
    plan = plan_autoscale(Objects([service(4), *running]), service(4), used(running, 0.5), NOW)
    assert plan.ops[0].object.scaling == ScalingStatus(
        at=NOW, replicas=8, message="scaled from 4 to 8: cpu at 100% of the limit, 50% wanted"
    )
