"""What services wait for."""

import pytest

from swarm.base.errors import InvalidArgument
from swarm.base.ids import ServiceID, TaskID
from swarm.manager.orchestrator.dependencies import dependents_of, refuse_dependencies, waits_for
from swarm.model.objects import Service, Task, TaskStatus
from swarm.model.specs import ReplicatedJob, ReplicatedMode, ServiceMode, ServiceSpec
from swarm.model.task_state import TaskState
from swarm.model.view import Objects


def service(name, needs="", replicas=2, job=False):
    mode = (
        ServiceMode(replicated_job=ReplicatedJob())
        if job
        else ServiceMode(replicated=ReplicatedMode(replicas=replicas))
    )
    labels = {"swarm.depends-on": needs} if needs else {}
    return Service(id=ServiceID(f"id-{name}"), spec=ServiceSpec(name=name, labels=labels, mode=mode))


def task(name, slot, state):
    return Task(
        id=TaskID(f"{name}.{slot}"),
        service_id=ServiceID(f"id-{name}"),
        slot=slot,
        status=TaskStatus(state=state),
    )


@pytest.mark.parametrize(
    ("needs", "states", "reason"),
    [
        ("db", [], "waiting for service db to be started"),
        ("db", [TaskState.STARTING], "waiting for service db to be started"),
        ("db", [TaskState.RUNNING], ""),
        ("db:healthy", [TaskState.RUNNING], "waiting for service db to be healthy"),
        ("db:healthy", [TaskState.RUNNING, TaskState.STARTING], "waiting for service db to be healthy"),
        ("db:healthy", [TaskState.RUNNING, TaskState.RUNNING], ""),
    ],
)
def test_waits_for(needs, states, reason):
    web = service("web", needs)
    tasks = [task("db", n + 1, state) for n, state in enumerate(states)]
    assert waits_for(Objects([service("db"), web, *tasks]), web) == reason


def test_a_dependency_that_was_removed_is_waited_for():
    web = service("web", "db")
    assert waits_for(Objects([web]), web) == "waiting for service db to be started"


def test_dependents():
    view = Objects([service("db"), service("web", "db"), service("other"), service("job", "web,db")])
    assert dependents_of(view, ServiceID("id-db")) == {"id-web", "id-job"}


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ("nothing", "depends on service nothing, which does not exist"),
        ("db:completed", "only a job completes"),
        ("web", "circle: web -> web"),
        ("front", "circle: web -> front -> web"),
    ],
)
def test_refused(needs, message):
    view = Objects([service("db"), service("front", "web"), service("web")])
    with pytest.raises(InvalidArgument, match=message):
        refuse_dependencies(view, service("web", needs).spec)


def test_a_chain_is_fine():
    view = Objects([service("db"), service("cache", "db"), service("load", job=True)])
    refuse_dependencies(view, service("web", "cache:healthy,db,load:completed").spec)
