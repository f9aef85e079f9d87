"""What tests believe of the fake store holds of the real one: one set of promises, both of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import AlreadyExists, OutOfSequence
from swarm.base.ids import new_id
from swarm.model.objects import Network, Node, Service, Task
from swarm.model.plan import Create, Delete, Update
from swarm.model.specs import NetworkSpec, ServiceSpec
from swarm.model.types import Endpoint, PortConfig
from tests.fakes.fake_store import FakeStore
from tests.fakes.memory_cluster import memory_store


@pytest.fixture(params=["real", "fake"])
async def store(request) -> AsyncIterator[object]:
    if request.param == "fake":
        yield FakeStore(FakeClock())
        return
    async with memory_store(FakeClock()) as store:
        yield store


def service(name, *ports):
    published = tuple(PortConfig(target_port=80, published_port=p) for p in ports)
    return Service(id=new_id(), spec=ServiceSpec(name=name), endpoint=Endpoint(ports=published))


async def test_a_writer_reads_what_it_wrote(store):
    web = service("web")
    revision = await store.commit([Create(object=web)])
    stored = store.view.get(Service, web.id)
    assert replace(stored, meta=web.meta) == web
    assert stored.meta.version.index == revision == store.revision
    assert stored.meta.created_at == stored.meta.updated_at == FakeClock().now()


async def test_versions_rise_and_creation_stays(store):
    web = service("web")
    await store.commit([Create(object=web)])
    first = store.view.get(Service, web.id)
    await store.commit([Update(object=replace(first, spec=ServiceSpec(name="web", labels={"a": "1"})))])
    second = store.view.get(Service, web.id)
    assert second.meta.version.index > first.meta.version.index
    assert second.meta.created_at == first.meta.created_at
    with pytest.raises(OutOfSequence, match=r"update out of sequence$"):
        await store.commit([Update(object=first)])
    with pytest.raises(OutOfSequence):
        await store.commit([Delete(object=first)])
    await store.commit([Delete(object=second)])
    assert store.view.get(Service, web.id) is None
    with pytest.raises(OutOfSequence):
        await store.commit([Update(object=second)])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (service("web"), service("web")),
        (service("one", 8080), service("two", 8080)),
        (Network(id=new_id(), spec=NetworkSpec(name="n")), Network(id=new_id(), spec=NetworkSpec(name="n"))),
        (Node(id="same"), Node(id="same")),
        (Task(id="same"), Task(id="same")),
    ],
    ids=["name", "port", "network", "node", "task"],
)
async def test_what_is_unique(store, first, second):
    await store.commit([Create(object=first)])
    revision = store.revision
    with pytest.raises(AlreadyExists):
        await store.commit([Create(object=second)])
    assert store.revision == revision


async def test_names_and_ports_are_freed(store):
    web = service("web", 8080)
    await store.commit([Create(object=web)])
    stored = store.view.get(Service, web.id)
    await store.commit([Update(object=replace(stored, endpoint=Endpoint()))])
    await store.commit([Create(object=service("next", 8080))])
    await store.commit([Delete(object=store.view.get(Service, web.id))])
    await store.commit([Create(object=service("web"))])


async def test_a_removed_network_gives_its_name_back_and_keeps_its_number(store):
    made = Network(id=new_id(), spec=NetworkSpec(name="n"), vni=77)
    await store.commit([Create(object=made)])
    stored = store.view.get(Network, made.id)
    await store.commit([Update(object=replace(stored, is_removed=True))])
    await store.commit([Create(object=Network(id=new_id(), spec=NetworkSpec(name="n")))])
    other = Network(id=new_id(), spec=NetworkSpec(name="other"), vni=77)
    with pytest.raises(AlreadyExists, match="VXLAN network identifier 77"):
        await store.commit([Create(object=other)])
    await store.commit([Delete(object=store.view.get(Network, made.id))])
    await store.commit([Create(object=other)])


async def test_an_update_may_not_take_what_another_holds(store):
    web = service("web", 8080)
    await store.commit([Create(object=web), Create(object=service("other", 9090))])
    stored = store.view.get(Service, web.id)
    with pytest.raises(AlreadyExists):
        await store.commit([Update(object=replace(stored, endpoint=service("x", 9090).endpoint))])


async def test_all_or_nothing(store):
    await store.commit([Create(object=service("web"))])
    with pytest.raises(AlreadyExists):
        await store.commit([Create(object=service("fresh")), Create(object=service("web"))])
    assert store.view.named(Service, "fresh") == ()
