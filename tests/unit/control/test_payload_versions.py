"""Versions of secrets: what is stored, who is rolled, and what may be thrown away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import FailedPrecondition, InvalidArgument, NotFound
from swarm.base.ids import SecretID, ServiceID, TaskID
from swarm.manager.control.payload_versions import PayloadVersions
from swarm.model.container import Driver
from swarm.model.objects import Payload, Secret, Service, Task, TaskStatus, payload_id
from swarm.model.specs import (
    ContainerSpec,
    FileTarget,
    ReplicatedJob,
    SecretReference,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.task_state import TaskState
from swarm.model.types import UpdateState, UpdateStatus
from tests.fakes.fake_store import FakeStore

DB = SecretID("db-id")
DONE = UpdateStatus(state=UpdateState.COMPLETED)


def template(version=0):
    reference = SecretReference(secret_id=DB, secret_name="db", file=FileTarget(name="db"), version=version)
    return TaskSpec(container_spec=ContainerSpec(secrets=(reference,)))


def service(name, version=0, mode=None):
    spec = ServiceSpec(name=name, task_template=template(version), mode=mode or ServiceMode())
    return Service(id=ServiceID(name), spec=spec, update_status=DONE)


@pytest.fixture
def store():
    found = FakeStore(FakeClock())
    found.put(Secret(id=DB, spec=SecretSpec(name="db")))
    found.put(Payload(id=payload_id(DB, 1), data=b"one"))
    return found


@pytest.fixture
def versions(store):
    return PayloadVersions(store)


async def test_followers_are_rolled_in_the_same_transaction_and_can_go_back(store, versions):
    before = store.put(service("follows"))
    held, job = (
        store.put(service("held", 1)),
        store.put(service("job", mode=ServiceMode(replicated_job=ReplicatedJob()))),
    )
    assert await versions.add(Secret, "db", b"two") == 2
    assert len(store.commits) == 1
    found = store.view.get(Service, before.id)
    assert found.spec == before.spec
    assert (found.update_status, found.spec_version) == (None, before.meta.version)
    assert found.previous_spec == replace(before.spec, task_template=template(1))
    assert found.previous_spec_version == before.spec_version
    assert store.view.get(Service, held.id) == held
    assert store.view.get(Service, job.id) == job
    secret = store.view.get(Secret, DB)
    assert (secret.current, secret.last) == (2, 2)


async def test_the_same_data_and_bad_data_change_nothing(store, versions):
    revision = store.revision
    assert await versions.add(Secret, "db", b"one") == 1
    for data in (b"", bytes(500 * 1024)):
        with pytest.raises(InvalidArgument, match="secret data must be larger than 0 and less than 512000"):
            await versions.add(Secret, "db", data)
    with pytest.raises(NotFound):
        await versions.add(Secret, "other", b"x")
    with pytest.raises(FailedPrecondition, match="secret db has no version before 1"):
        await versions.roll_back(Secret, "db")
    with pytest.raises(NotFound, match="7 of secret db"):
        await versions.roll_back(Secret, "db", 7)
    assert store.revision == revision


async def test_a_number_is_used_once(versions):
    await versions.add(Secret, "db", b"two")
    assert await versions.roll_back(Secret, "db") == 1
    assert await versions.add(Secret, "db", b"three") == 3
    assert await versions.roll_back(Secret, "db") == 2
    facts = versions.history(Secret, "db")
    assert [(f.number, f.is_current, f.size_bytes) for f in facts] == [
        (3, False, 5),
        (2, True, 3),
        (1, False, 3),
    ]


async def test_only_what_nothing_uses_is_pruned(store, versions):
    for number in range(2, 7):
        assert await versions.add(Secret, "db", f"v{number}".encode()) == number
    store.put(service("held", 2))
    store.put(replace(service("rolled", 6), previous_spec=ServiceSpec(name="x", task_template=template(3))))
    running = TaskStatus(state=TaskState.RUNNING)
    spec = template(4)
    store.put(
        Task(
            id=TaskID("t"),
            spec=spec,
            service_id=ServiceID("held"),
            service_name="held",
            slot=1,
            status=running,
        )
    )
    assert await versions.prune(Secret, "db") == (1, 5)
    assert {f.number: f.tasks for f in versions.history(Secret, "db")} == {
        6: (),
        4: ("held.1.t",),
        3: (),
        2: (),
    }
    assert await versions.prune(Secret, "db") == ()


async def test_a_secret_of_a_driver_has_no_versions(store, versions):
    store.put(Secret(id=SecretID("v"), spec=SecretSpec(name="v", driver=Driver(name="vault"))))
    with pytest.raises(FailedPrecondition, match="secret v comes from its driver"):
        await versions.add(Secret, "v", b"x")
