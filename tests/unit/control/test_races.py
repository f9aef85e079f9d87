"""Changes that go with no version of the user's, while others write the same objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import NotFound, OutOfSequence
from swarm.base.ids import SecretID, SequentialIds
from swarm.manager.control import Control
from swarm.model.objects import Cluster, Payload, RootCA, Secret, Service, payload_id
from swarm.model.plan import Crossing, Op
from swarm.model.rotate import TokenRequest
from swarm.model.specs import ContainerSpec, SecretSpec, ServiceSpec, TaskSpec
from swarm.model.types import NodeRole, NodeState
from tests.fakes.fake_backend import a_node
from tests.fakes.fake_store import FakeStore

DB = SecretID("db-id")


class ContestedStore(FakeStore):
    """`others` write just before each commit, as long as there are any."""

    others: list[Callable[[], object]]
    crossed: Crossing | None = None
    """On which side somebody else's last write was."""

    async def commit(self, ops: Sequence[Op], *, crossing: Crossing | None = None) -> int:
        if self.others:
            self.others.pop(0)()
        is_crossed = crossing is not None and self.crossed not in (None, crossing)
        self.crossed = None
        if is_crossed:
            raise OutOfSequence
        return await super().commit(ops, crossing=crossing)


@pytest.fixture
def store() -> ContestedStore:
    found = ContestedStore(FakeClock())
    found.others = []
    found.put(Cluster(id="c", root_ca=RootCA()))
    found.put(a_node(2, state=NodeState.DOWN))
    template = TaskSpec(container_spec=ContainerSpec(image="web:1"))
    found.put(Service(id="web-id", spec=ServiceSpec(name="web", task_template=template)))
    found.put(Secret(id=DB, spec=SecretSpec(name="db")))
    found.put(Payload(id=payload_id(DB, 1), data=b"one"))
    return found


@pytest.fixture
def control(store: ContestedStore) -> Control:
    return Control(store, FakeClock(), SequentialIds("id"), lambda _: True)


CHANGES = {
    "service rm": (Service, lambda control: control.remove_service("web")),
    "node rm": (type(a_node(2)), lambda control: control.remove_node("h2")),
    "join-token": (Cluster, lambda control: control.create_token(TokenRequest(role=NodeRole.WORKER, uses=1))),
    "secret update": (Secret, lambda control: control.payload_versions.add(Secret, "db", b"two")),
    "secret rm": (Secret, lambda control: control.payloads.remove(Secret, "db")),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_it_is_decided_anew_after_others_have_written(
    store: ContestedStore, control: Control, change: str
) -> None:
    kind, act = CHANGES[change]
    store.others = [lambda: store.put(store.view.list(kind)[0])] * 3
    await act(control)
    assert not store.others


async def test_it_is_not_tried_for_ever(store: ContestedStore, control: Control) -> None:
    store.others = [lambda: store.put(store.view.list(Service)[0])] * 100
    with pytest.raises(OutOfSequence):
        await control.remove_service("web")


async def test_what_another_manager_has_removed_is_gone(store: ContestedStore, control: Control) -> None:
    store.others = [lambda: store.view.remove(Service, "web-id")]
    with pytest.raises(NotFound):
        await control.remove_service("web")


async def test_a_version_that_is_rolled_back_to_meanwhile_is_not_pruned(
    store: ContestedStore, control: Control
) -> None:
    """Two managers: one prunes, the other makes an old version current."""
    for data in (b"two", b"three"):
        await control.payload_versions.add(Secret, "db", data)
    secret = store.view.list(Secret)[0]

    def roll_back() -> None:
        store.put(replace(secret, current=1))
        store.crossed = Crossing.NAMES

    store.others = [roll_back]
    assert await control.payload_versions.prune(Secret, "db") == (2, 3)
    assert store.view.get(Payload, payload_id(DB, 1)) is not None
