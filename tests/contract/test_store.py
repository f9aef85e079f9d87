"""The store's promises, over either key-value service."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import AlreadyExists, InvalidArgument, LeadershipLost, OutOfSequence
from swarm.base.ids import new_id
from swarm.model.objects import Service, Task
from swarm.model.plan import Create, Crossing, Delete, Update
from swarm.model.specs import ServiceSpec
from swarm.model.types import Endpoint, PortConfig
from swarm.secrets.box import Box, Unsealable, new_data_key
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.election import Election
from swarm.store.kv import Compare, Put
from swarm.store.kv import Delete as DeleteKey
from swarm.store.store import Store

KEY = new_data_key()


@pytest.fixture
async def stores(kv):
    """A function that opens one more store on the same service; all are closed, and the keys removed."""
    for item in (await kv.list(keys.PREFIX)).items:
        await kv.txn([], [DeleteKey(item.key)])
    running = []

    async def opened(data_key=KEY):
        store = Store(kv, Keyring([data_key]), FakeClock())
        running.append(asyncio.ensure_future(store.run()))
        await store.ready()
        return store

    yield opened
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def service(name, *ports):
    published = tuple(PortConfig(target_port=80, published_port=p) for p in ports)
    return Service(id=new_id(), spec=ServiceSpec(name=name), endpoint=Endpoint(ports=published))


async def test_a_writer_reads_what_it_wrote(stores):
    store = await stores()
    web = service("web")
    revision = await store.commit([Create(object=web)])
    stored = store.view.get(Service, web.id)
    assert stored.spec == web.spec
    assert stored.meta.version.index == revision
    assert stored.meta.created_at == stored.meta.updated_at is not None


async def test_another_store_sees_it_and_changes_feed_says_so(stores):
    one, two = await stores(), await stores()
    with two.changes(Service) as changes:
        web = service("web")
        await one.commit([Create(object=web)])
        async with asyncio.timeout(5):
            seen = await changes.wait()
    assert seen[(Service, web.id)].old is None
    assert two.view.named(Service, "web")[0].id == web.id


async def test_what_no_transaction_can_hold_is_refused(stores):
    store = await stores()
    web = service("web")
    large = replace(web, spec=replace(web.spec, labels={"notes": "x" * (1 << 20)}))
    with pytest.raises(InvalidArgument, match="too large to be stored"):
        await store.commit([Create(object=large)])


async def test_names_and_ports_are_unique(stores):
    store = await stores()
    await store.commit([Create(object=service("web", 8080))])
    before = store.revision
    with pytest.raises(AlreadyExists, match="service web already exists"):
        await store.commit([Create(object=service("web"))])
    with pytest.raises(AlreadyExists, match="port '8080' is already in use"):
        await store.commit([Create(object=service("other", 8080))])
    assert store.revision == before


async def test_a_deleted_service_frees_its_name_and_port(stores):
    store = await stores()
    web = service("web", 8080)
    await store.commit([Create(object=web)])
    await store.commit([Delete(object=store.view.get(Service, web.id))])
    await store.commit([Create(object=service("web", 8080))])


async def test_an_update_moves_the_ports_it_holds(stores):
    store = await stores()
    web = service("web", 8080)
    await store.commit([Create(object=web)])
    stored = store.view.get(Service, web.id)
    await store.commit([Update(object=replace(stored, endpoint=service("web", 9090).endpoint))])
    await store.commit([Create(object=service("next", 8080))])
    with pytest.raises(AlreadyExists):
        await store.commit([Create(object=service("last", 9090))])


async def test_an_update_of_an_old_version_is_out_of_sequence(stores):
    store = await stores()
    web = service("web")
    await store.commit([Create(object=web)])
    old = store.view.get(Service, web.id)
    await store.commit([Update(object=replace(old, spec=ServiceSpec(name="web", labels={"a": "1"})))])
    with pytest.raises(OutOfSequence, match=r"update out of sequence$"):
        await store.commit([Update(object=old)])


async def test_commit_is_all_or_nothing(stores):
    store = await stores()
    await store.commit([Create(object=service("web"))])
    with pytest.raises(AlreadyExists):
        await store.commit([Create(object=service("fresh")), Create(object=service("web"))])
    assert store.view.named(Service, "fresh") == ()


async def test_apply_drops_what_lost_and_writes_the_rest_in_bounded_transactions(stores):
    store = await stores()
    epoch = await store.write_raw([Compare(keys.LEADER, 0)], [Put(keys.LEADER, b"me")])
    tasks = [Task(id=new_id(), service_name="web") for _ in range(250)]
    assert await store.apply([Create(object=t) for t in tasks], epoch=epoch) == 250
    stale = store.view.get(Task, tasks[0].id)
    await store.commit([Update(object=replace(stale, slot=7))])
    ops = [Update(object=replace(t, slot=9)) for t in (stale, store.view.get(Task, tasks[1].id))]
    assert await store.apply(ops, epoch=epoch) == 1
    assert store.view.get(Task, tasks[0].id).slot == 7
    assert store.view.get(Task, tasks[1].id).slot == 9


async def test_a_deposed_leader_writes_nothing(stores):
    store = await stores()
    epoch = await store.write_raw([Compare(keys.LEADER, 0)], [Put(keys.LEADER, b"me")])
    await store.write_raw([Compare(keys.LEADER, epoch)], [Put(keys.LEADER, b"you")])
    with pytest.raises(LeadershipLost):
        await store.apply([Create(object=service("web"))], epoch=epoch)
    with pytest.raises(LeadershipLost):
        await store.commit([Create(object=service("web"))], epoch=epoch)
    assert store.view.list(Service) == ()


async def test_what_is_stored_is_sealed_for_its_place(stores, kv):
    store = await stores()
    web = service("very-visible-name")
    await store.commit([Create(object=web)])
    items = (await kv.list(keys.OBJECTS)).items
    everything = (await kv.list(keys.PREFIX)).items
    assert all(b"very-visible-name" not in i.key.encode() + i.value for i in everything)
    with pytest.raises(Unsealable):
        Box(KEY).open("/swarm/objects/services/elsewhere", items[0].value)
    with pytest.raises(Unsealable):
        Box(new_data_key()).open(items[0].key, items[0].value)


async def test_a_value_that_does_not_open_stops_the_mirror_and_is_told(stores, kv):
    store = await stores()
    await store.commit([Create(object=service("web"))])
    key, revision = (await kv.list(keys.OBJECTS)).items[0].key, store.revision
    await kv.txn((), (Put(key, b"\x01" + bytes(80)),))
    async with asyncio.timeout(5):
        while not store.damage:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
    assert key in store.damage
    assert store.revision == revision
    assert [s.spec.name for s in store.view.list(Service)] == ["web"]


async def test_leadership_passes_on_and_fences(stores):
    one, two = await stores(), await stores()
    led: list[tuple[str, int]] = []
    leading = asyncio.Event()

    def election(store, me):
        async def lead(epoch):
            led.append((me, epoch))
            leading.set()
            await asyncio.Event().wait()

        return Election(store, store._clock, me, lead)

    first = asyncio.ensure_future(election(one, "n1").run())
    async with asyncio.timeout(5):
        await leading.wait()
    leading.clear()
    second = asyncio.ensure_future(election(two, "n2").run())
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    async with asyncio.timeout(5):
        await leading.wait()
    second.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await second
    assert [who for who, _ in led] == ["n1", "n2"]
    assert led[0][1] < led[1][1]


@pytest.mark.parametrize("first", Crossing)
async def test_of_two_commits_that_cross_the_later_one_fails(stores, first):
    """Both decide before either has written; those of one side do not hinder each other."""
    one, two, three = await stores(), await stores(), await stores()
    second = Crossing.REMOVES if first is Crossing.NAMES else Crossing.NAMES
    sides = ((one, first), (two, first), (three, second))
    work = [store.commit([Create(object=service(side))], crossing=side) for store, side in sides[1:]]
    done = await asyncio.gather(*work, return_exceptions=True)
    assert sorted(isinstance(each, OutOfSequence) for each in done) == [False, True]
    await one.sync()
    assert len(one.view.list(Service)) == 1
    for store, side in sides:
        await store.sync()
        await store.commit([Create(object=service(new_id()))], crossing=side)
    both = [store.commit([Create(object=service(new_id()))], crossing=first) for store in (one, two)]
    await asyncio.gather(one.sync(), two.sync())
    assert len(set(await asyncio.gather(*both))) == 2
