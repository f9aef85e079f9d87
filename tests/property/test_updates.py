"""An update with no fault but leaders that die after any write: what it costs, and that it ends.

The bounds are those of the configuration: with stop-first never more than `parallelism` slots are down
because of the update, with start-first none is, and never more than `parallelism` tasks run beside those
wanted. What a template brings down that is rolled out whatever happens (`continue`) is not the fault of the
update.
"""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.model.objects import Service, Task
from swarm.model.task_state import TaskState
from swarm.model.types import UpdateState
from swarm.scheduler.cluster import Accounting
from tests.scenarios.env import Scenario

REPLICAS = 4
ENDED = {
    UpdateState.COMPLETED,
    UpdateState.PAUSED,
    UpdateState.ROLLBACK_COMPLETED,
    UpdateState.ROLLBACK_PAUSED,
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lead"), st.integers(0, 4)),
        st.tuples(st.just("act"), st.just(0)),
        st.tuples(st.just("stop slowly"), st.integers(0, 1)),
        st.tuples(st.just("pass"), st.integers(0, 3)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(
    order=st.sampled_from(["stop-first", "start-first"]),
    parallelism=st.integers(1, 3),
    action=st.sampled_from(["pause", "continue", "rollback"]),
    fault=st.sampled_from(["", "refused", "ends", "never up"]),
    is_global=st.booleans(),
    wait=st.sampled_from(["0s", "2s"]),
    steps=STEPS,
)
def test_an_update_keeps_its_bounds_and_ends(
    order, parallelism, action, fault, is_global, wait, steps
) -> None:
    scenario = Scenario()
    for number in range(REPLICAS):
        scenario.run(f"add-node n{number}")
    mode = "mode=global" if is_global else f"replicas={REPLICAS}"
    scenario.run(
        f"create-service web {mode} order={order} parallelism={parallelism} on_failure={action} wait={wait} "
        "option=update.progress-deadline=30s"
    )
    scenario.run("settle")
    spoil(scenario, fault)
    is_spoilt = fault == "ends" or (fault == "never up" and action == "continue")
    scenario.run("update-service web image=web:2")
    for step, number in steps:
        take(scenario, step, number)
        check(scenario, order, parallelism, is_spoilt=is_spoilt)
    take(scenario, "stop slowly", 0)
    for _ in range(40):
        scenario.run("tick 10s")
        check(scenario, order, parallelism, is_spoilt=is_spoilt)
    status = scenario.cluster.objects.list(Service)[0].update_status
    assert status
    assert status.state in ENDED
    if not fault:
        assert status.state is UpdateState.COMPLETED
        assert all(task.spec.container_spec.image == "web:2" for task in running(scenario))
    elif action != "continue":
        assert "web." in status.message


def spoil(scenario: Scenario, fault: str) -> None:
    if fault == "refused":
        scenario.run("always-reject web:2 refused")
    elif fault == "ends":
        scenario.run("always-fail web:2 exit=1")
    elif fault:
        scenario.run("never-start web:2")


def take(scenario: Scenario, step: str, number: int) -> None:
    cluster = scenario.cluster
    if step == "lead":
        cluster.lead(number)
        cluster.accounting = Accounting.of(cluster.objects)
    elif step == "act":
        cluster.act()
    elif step == "stop slowly":
        for host in cluster.hosts.values():
            host.is_stopping_slowly = bool(number)
    else:
        cluster.clock.advance(timedelta(seconds=number))


def check(scenario: Scenario, order: str, parallelism: int, *, is_spoilt: bool) -> None:
    number = len(running(scenario))
    if not is_spoilt:
        assert number >= REPLICAS - down(order, parallelism), scenario.run("tasks")
    assert number <= REPLICAS + (parallelism if order == "start-first" else 0), scenario.run("tasks")


def down(order: str, parallelism: int) -> int:
    return 0 if order == "start-first" else parallelism


def running(scenario: Scenario) -> list[Task]:
    """By what the hosts really do."""
    containers = {task_id for host in scenario.cluster.hosts.values() for task_id in host.containers}
    tasks = scenario.cluster.objects.list(Task)
    return [t for t in tasks if t.id in containers or t.status.state is TaskState.RUNNING]
