"""Another data key while everything runs on: who has which, what is sealed how, and deaths on the way."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from swarm.base import failpoint as failpoints
from swarm.base.clock import FakeClock
from swarm.base.errors import AlreadyExists, Unavailable
from swarm.base.ids import NodeID, new_id
from swarm.manager import data_key as module
from swarm.manager.data_key import DataKeyRotation, Held
from swarm.model.objects import ManagerStatus, Node, Service
from swarm.model.plan import Create, Delete, Update
from swarm.model.specs import NodeSpec, ServiceSpec
from swarm.model.types import Endpoint, NodeRole, PortConfig
from swarm.secrets.box import Unsealable, new_data_key
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.kv import Put
from swarm.store.memory import MemoryKV
from tests.fakes.memory_cluster import lead, memory_store

SERVICES = 230
"""More than one batch."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    yield
    failpoints.arm("")


@dataclass
class Site:
    """Managers over one key-value service, each with a disk of its own."""

    kv: MemoryKV
    disks: dict[str, tuple[bytes, ...]]
    running: dict[str, DataKeyRotation] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)

    async def ask(self, node_id):
        if node_id in self.down:
            raise Unavailable("down")
        return self.disks[node_id]

    @asynccontextmanager
    async def manager(self, name):
        """One that follows; it beats whenever its keys change."""
        ring = Keyring(self.disks[name])
        async with memory_store(FakeClock(), self.kv, ring=ring) as store:

            def save(data_keys):
                self.disks[name] = tuple(data_keys)

            rotation = DataKeyRotation(store, NodeID(name), Held(ring=ring, save=save), self.ask)
            self.running[name] = rotation
            tasks = [asyncio.ensure_future(work) for work in (rotation.run(), self.beat(store, name, ring))]
            try:
                yield store, rotation
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def beat(self, store, name, ring):
        while True:
            await store.write_raw((), (Put(keys.MANAGERS + name, " ".join(("1", *ring.names)).encode()),))
            await asyncio.sleep(0.01)

    async def values(self):
        return (await self.kv.list(keys.OBJECTS)).items


def service(name, *ports):
    published = tuple(PortConfig(target_port=80, published_port=p) for p in ports)
    return Service(id=new_id(), spec=ServiceSpec(name=name), endpoint=Endpoint(ports=published))


def manager(name):
    spec = NodeSpec(role=NodeRole.MANAGER)
    return Node(id=NodeID(name), spec=spec, manager_status=ManagerStatus(addr=f"{name}:2377"))


@asynccontextmanager
async def three():
    key = new_data_key()
    site = Site(MemoryKV(), dict.fromkeys(("m1", "m2", "m3"), (key,)))
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(site.manager(name)) for name in site.disks]
        store = stores[0][0]
        await store.commit([Create(object=manager(name)) for name in site.disks])
        await store.apply([Create(object=service(f"s{n}", 1000 + n)) for n in range(SERVICES)])
        yield site, [s for s, _ in stores], key


@asynccontextmanager
async def leading(site, store, name="m1"):
    epoch = await lead(store, name)
    task = asyncio.ensure_future(site.running[name].lead(epoch))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition, what):
    try:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


def is_over(store, former):
    present = store.sealing.keys
    return present.sealing != former and not present.coming and not present.going


async def assert_moved(site, stores, old):
    """Nothing opens with the old key, all with the new one, and only that is kept."""
    await until(lambda: all(len(disk) == 1 for disk in site.disks.values()), f"one key: {site.disks}")
    assert len({*site.disks.values()}) == 1
    (new,) = site.disks["m1"]
    assert new != old
    for item in await site.values():
        Keyring([new]).open(item.key, item.value)
        with pytest.raises(Unsealable):
            Keyring([old]).open(item.key, item.value)
    ring, services = Keyring([new]), stores[0].view.list(Service)
    box = ring.box(ring.names[0])
    wanted = {keys.CLAIMS + box.blind(claim) for item in services for claim in keys.claims(item)}
    found = {item.key for item in (await site.kv.list(keys.CLAIMS)).items}
    assert found == wanted


async def test_everything_is_sealed_with_the_new_key_and_the_old_one_is_given_up():
    async with three() as (site, stores, old):
        former = stores[0].sealing.keys.sealing
        before = {s.id: s for s in stores[1].view.list(Service)}
        async with leading(site, stores[0]):
            await site.running["m2"].request()
            await until(lambda: all(is_over(s, former) for s in stores), "it ends")
            await assert_moved(site, stores, old)
        for found in stores[1].view.list(Service):
            assert replace(found, meta=before[found.id].meta) == before[found.id]
            assert found.meta.updated_at == before[found.id].meta.updated_at
        with pytest.raises(AlreadyExists, match="s7 already exists"):
            await stores[2].commit([Create(object=service("s7"))])


async def test_a_manager_that_is_down_holds_it_up_and_is_named_and_then_it_goes_on():
    async with three() as (site, stores, old):
        former = stores[0].sealing.keys.sealing

        def lacking():
            return {n.id for n in site.running["m2"].progress.waits_for}

        async with leading(site, stores[0]):
            site.down.update(site.disks)  # nobody gets the key from anybody
            await site.running["m1"].request()
            await until(lambda: len(site.disks["m1"]) == 2, "the leader makes one")
            await until(lambda: lacking() == {"m2", "m3"}, "they are named")
            progress = site.running["m2"].progress
            assert stores[1].sealing.keys.sealing == former
            assert progress.left == progress.total
            site.down.clear()
            await until(lambda: all(is_over(s, former) for s in stores), "it ends")
        await assert_moved(site, stores, old)


async def test_names_and_ports_stay_unique_and_can_be_freed_while_both_keys_are_in_use():
    async with three() as (site, stores, old):
        former = stores[0].sealing.keys.sealing
        failpoints.arm(";".join(f"datakey.reseal.before:{hit}:error" for hit in range(1, 400)))
        async with leading(site, stores[0]):
            await site.running["m1"].request()
            await until(lambda: all(s.sealing.keys.going for s in stores), "the new key seals")
            with pytest.raises(AlreadyExists, match="s1 already exists"):
                await stores[1].commit([Create(object=service("s1"))])
            with pytest.raises(AlreadyExists, match="port '1003' is already in use"):
                await stores[2].commit([Create(object=service("other", 1003))])
            fresh = service("fresh", 5000)
            await stores[1].commit([Create(object=fresh)])
            with pytest.raises(AlreadyExists, match="fresh already exists"):
                await stores[2].commit([Create(object=service("fresh"))])
            freed = next(s for s in stores[1].view.list(Service) if s.spec.name == "s5")
            await stores[1].commit([Delete(object=freed)])
            await stores[1].commit([Create(object=service("s5", 1005))])
            renamed = next(s for s in stores[1].view.list(Service) if s.spec.name == "s6")
            spec = replace(renamed.spec, labels={"a": "b"})
            await stores[1].commit([Update(object=replace(renamed, spec=spec))])
            failpoints.arm("")
            await until(lambda: all(is_over(s, former) for s in stores), "it ends")
        await assert_moved(site, stores, old)


async def test_a_write_that_was_sealed_with_the_former_key_does_not_happen():
    async with three() as (site, stores, old):
        former = stores[0].sealing.keys.sealing
        late = stores[1].sealing.encode(Create(object=service("late")), FakeClock().now())
        fence = stores[1].sealing.fence
        async with leading(site, stores[0]):
            await site.running["m1"].request()
            await until(lambda: all(is_over(s, former) for s in stores), "it ends")
        result = await site.kv.txn((*late.compares, fence), late.writes)
        assert result.failed == (keys.DATA_KEY,)
        await assert_moved(site, stores, old)


POINTS = tuple(
    f"datakey.{step}"
    for step in (
        "save.before",
        "make.saved",
        "make.announced",
        "fetch.saved",
        "switch.before",
        "switch.after",
        "reseal.before",
        "reseal.after",
        "end.before",
        "end.after",
        "drop.saved",
    )
)


@pytest.mark.parametrize("point", [*POINTS, "store.apply.after"])
async def test_a_leader_that_dies_anywhere_leaves_what_the_next_one_ends(point):
    """Each of the first passages fails; after each the seat goes to another manager."""
    async with three() as (site, stores, old):
        former = stores[0].sealing.keys.sealing
        await site.running["m1"].request()
        failpoints.arm(";".join(f"{point}:{hit}:error" for hit in (1, 2, 3)))
        for name in ("m1", "m2", "m3"):
            index = int(name[1]) - 1
            try:
                async with leading(site, stores[index], name):
                    await asyncio.sleep(0.05)
            except Unavailable:
                continue
        failpoints.arm("")
        async with leading(site, stores[2], "m3"):
            await until(lambda: all(is_over(s, former) for s in stores), f"it ends: {stores[0].sealing.keys}")
        await assert_moved(site, stores, old)


async def test_a_key_that_died_with_its_leader_is_replaced():
    async with three() as (site, stores, old):
        former = stores[0].sealing.keys.sealing
        await stores[0].write_raw(
            (), (Put(keys.DATA_KEY, b'{"sealing": "%s", "coming": "lost"}' % former.encode()),)
        )
        await stores[0].sync()
        async with leading(site, stores[1], "m2"):
            await until(lambda: all(is_over(s, former) for s in stores), "it ends")
        await assert_moved(site, stores, old)


async def test_asking_twice_is_asking_once():
    async with three() as (site, stores, old):
        former = stores[0].sealing.keys.sealing
        await site.running["m1"].request()
        await site.running["m2"].request()
        async with leading(site, stores[0]):
            await until(lambda: all(is_over(s, former) for s in stores), "it ends")
            await assert_moved(site, stores, old)
