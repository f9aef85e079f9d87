"""Who leads, which etcd may be used, what is sealed, and where things are."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.base.clock import FakeClock
from swarm.base.errors import FailedPrecondition, NoQuorum
from swarm.base.ids import NetworkID, NodeID, ServiceID, TaskID, new_id
from swarm.model.objects import Network, Node, Service, Task
from swarm.model.plan import Create
from swarm.model.specs import ContainerSpec, NetworkSpec, ServiceSpec, TaskSpec
from swarm.model.types import Endpoint, PortConfig, Protocol, PublishMode
from swarm.secrets.box import Box, Unsealable, new_data_key
from swarm.store import keys
from swarm.store.election import SILENT_FOR_S, Action, Observation, decide
from swarm.store.etcd_process import judge_version
from swarm.store.kv import Put
from swarm.store.memory import MemoryKV
from tests.fakes.memory_cluster import lead, memory_store

ME = NodeID("me")


@pytest.mark.parametrize(
    ("holder", "silent_for_s", "action"),
    [
        (None, 0.0, Action.TAKE_OVER),
        ("me", 0.0, Action.TAKE_OVER),
        ("other", 0.0, Action.FOLLOW),
        ("other", SILENT_FOR_S - 0.01, Action.FOLLOW),
        ("other", SILENT_FOR_S, Action.TAKE_OVER),
    ],
)
def test_who_takes_the_seat(holder, silent_for_s, action):
    assert decide(ME, Observation(holder=holder, silent_for_s=silent_for_s)) is action


@pytest.mark.parametrize("version", ["3.4.23", "3.5.3", "3.5.33", "3.6.0", "10.0.1"])
def test_versions_that_may_be_used(version):
    assert judge_version(f"etcd Version: {version}\nGit SHA: x\n") == version


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2"])
def test_versions_that_lose_data(version):
    with pytest.raises(FailedPrecondition, match=rf"etcd {version} can corrupt its data .*: install"):
        judge_version(f"etcd Version: {version}\n")


@pytest.mark.parametrize("output", ["", "etcd Version: devel", "etcdctl version: 3.5.9"])
def test_a_program_that_does_not_tell_its_version(output):
    with pytest.raises(FailedPrecondition, match="does not tell its version"):
        judge_version(output)


# --- sealing -----------------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.binary(max_size=200))
def test_what_is_sealed_opens_in_its_place(place, plain):
    box = Box(new_data_key())
    assert box.open(place, box.seal(place, plain)) == plain


def test_nothing_is_sealed_twice_alike():
    box = Box(new_data_key())
    assert len({box.seal("/a", b"same") for _ in range(50)}) == 50


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_does_not_open(at, change):
    box = Box(bytes(32))
    sealed = bytearray(box.seal("/a", b"content"))
    sealed[at % len(sealed)] ^= change
    with pytest.raises(Unsealable):
        box.open("/a", bytes(sealed))


@pytest.mark.parametrize("cut", [0, 1, 20, 44, 45, 50])
def test_a_cut_value_does_not_open(cut):
    box = Box(new_data_key())
    with pytest.raises(Unsealable, match="/a"):
        box.open("/a", box.seal("/a", b"content")[:cut])


def test_another_key_or_place_does_not_open():
    box = Box(new_data_key())
    sealed = box.seal("/a", b"content")
    for other, place in ((box, "/b"), (Box(new_data_key()), "/a")):
        with pytest.raises(Unsealable, match="does not open with this cluster's key"):
            other.open(place, sealed)


# --- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", keys.KINDS.values())
def test_an_object_s_key_tells_what_it_is(kind):
    assert keys.parse_object_key(keys.object_key(kind, "x1")) == (kind, "x1")


@pytest.mark.parametrize("key", [keys.LEADER, keys.LEADER_BEAT, "/swarm/objects/unknown/x", "/else"])
def test_other_keys_are_no_objects(key):
    assert keys.parse_object_key(key) is None


def test_what_is_unique_in_a_cluster():
    ports = (
        PortConfig(target_port=80, published_port=8080),
        PortConfig(target_port=53, published_port=53, protocol=Protocol.UDP),
        PortConfig(target_port=81, published_port=81, publish_mode=PublishMode.HOST),
    )
    web = Service(id=ServiceID("s"), spec=ServiceSpec(name="web"), endpoint=Endpoint(ports=ports))
    held = keys.claims(web)
    assert held == {"names/services/web", "ports/tcp/8080", "ports/udp/53"}
    assert keys.claims(Network(id=NetworkID("n"), spec=NetworkSpec(name="web"))).isdisjoint(held)
    assert keys.claims(Task(id=TaskID("t"))) == keys.claims(Node(id=ME)) == frozenset()
    assert "port '8080' is already in use" in keys.taken("ports/tcp/8080")
    assert "service web already exists" in keys.taken("names/services/web")


# --- the store's bounds ------------------------------------------------------------------------------------


class WeighingKV(MemoryKV):
    def __init__(self) -> None:
        super().__init__()
        self.weights: list[tuple[int, int]] = []

    async def txn(self, compares, writes):
        self.weights.append((len(writes), sum(len(getattr(w, "value", b"")) for w in writes)))
        return await super().txn(compares, writes)


async def test_a_plan_is_written_in_transactions_that_etcd_takes():
    """128 operations and 1.5 MiB are etcd's limits: a plan of large tasks must not be refused as a whole."""
    kv = WeighingKV()
    async with memory_store(FakeClock(), kv) as store:
        epoch = await lead(store)
        spec = TaskSpec(container_spec=ContainerSpec(env=("X=" + "x" * 50_000,)))
        large = [Create(object=Task(id=TaskID(new_id()), spec=spec)) for _ in range(60)]
        small = [Create(object=Task(id=TaskID(new_id()))) for _ in range(250)]
        kv.weights.clear()
        assert await store.apply([*large, *small], epoch=epoch) == 310
    assert max(count for count, _ in kv.weights) <= 100
    assert max(weight for _, weight in kv.weights) <= 1024 * 1024 + 64 * 1024


class DyingKV(MemoryKV):
    """Etcd while it is started again: it refuses so many reads."""

    refuses = 0

    async def revision(self):
        if self.refuses:
            self.refuses -= 1
            raise NoQuorum("connection refused")
        return await super().revision()


async def test_a_read_outlives_an_etcd_that_is_started_again(monkeypatch):
    kv = DyingKV()
    async with memory_store(FakeClock(), kv) as store:
        kv.refuses = 3
        await store.sync()
        assert kv.refuses == 0
        monkeypatch.setattr("swarm.store.store.ASK_AGAIN_FOR_S", 0.05)
        kv.refuses = 1000
        with pytest.raises(NoQuorum):
            await store.sync()


class TornKV(MemoryKV):
    """May hold a key that is no text, as a damaged database does."""

    is_torn = False

    async def watch(self, prefix, start_revision):
        async for batch in super().watch(prefix, start_revision):
            if self.is_torn:
                b"\xff".decode()
            yield batch

    async def list(self, prefix):
        if self.is_torn:
            b"\xff".decode()
        return await super().list(prefix)


async def test_what_cannot_be_read_stops_the_mirror_and_not_the_program(monkeypatch):
    monkeypatch.setattr("swarm.store.store.DAMAGED_RETRY_S", 0.0)
    kv = TornKV()
    async with memory_store(FakeClock(), kv) as store:
        service = Service(id=ServiceID(new_id()), spec=ServiceSpec(name="s"))
        await store.commit([Create(object=service)])
        key = keys.object_key(Service, service.id)
        sound = await kv.get(key)
        await kv.txn([], [Put(key, b"\xff" + sound.value[1:])])
        await until(lambda: store.damage)
        assert store.view.get(Service, service.id) is not None, "what was known before"
        await kv.txn([], [Put(key, sound.value)])
        await until(lambda: not store.damage)
        kv.is_torn = True
        await kv.txn([], [Put(key, sound.value)])
        await until(lambda: store.damage)
        kv.is_torn = False
        await until(lambda: not store.damage)
        assert store.view.get(Service, service.id).meta.version.index > sound.mod_revision


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)
