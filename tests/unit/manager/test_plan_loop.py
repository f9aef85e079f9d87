"""The edge of the planners: what it plans, when, and what it survives."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import LeadershipLost, Unavailable
from swarm.base.ids import new_id
from swarm.manager import loop
from swarm.manager.loop import PlanLoop, Planner
from swarm.model.objects import Service, Task
from swarm.model.plan import Create, Plan, Update
from swarm.model.specs import ServiceSpec
from swarm.store import keys
from swarm.store.kv import Put
from swarm.store.memory import MemoryKV
from tests.fakes.memory_cluster import lead, memory_store


class MovingClock(FakeClock):
    """Each look at the monotone clock is free; each at the wall moves it, so that alarms come due."""

    def now(self):
        self.advance(timedelta(milliseconds=10))
        return super().now()


class FaultyKV(MemoryKV):
    """Refuses as many transactions as it is told to."""

    failures = 0
    late = False
    """The next write to an object is not answered, and happens only when something is written after it."""
    _held = None

    async def txn(self, compares, writes):
        if self.late and any(isinstance(w, Put) and w.key.startswith(keys.OBJECTS) for w in writes):
            self.late, self._held = False, (compares, writes)
            raise Unavailable("no answer in time")
        if self._held:
            held, self._held = self._held, None
            await super().txn(*held)
        if self.failures:
            self.failures -= 1
            raise Unavailable("no quorum")
        return await super().txn(compares, writes)

    async def get(self, key):
        if self.failures:
            raise Unavailable("no quorum")
        return await super().get(key)


class Plans:
    """A planner of services that records what it was asked, and answers as told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._asked = asyncio.Event()
        self.answer = lambda view, key, now: Plan()

    def planner(self) -> Planner:
        return Planner(
            name="test",
            kinds=(Service,),
            all_keys=lambda view: [s.id for s in view.list(Service)],
            keys_of=lambda key, change: (key[1],),
            plan=self._plan,
        )

    def _plan(self, view, key, now):
        self.asked.append(key)
        self._asked.set()
        return self.answer(view, key, now)

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self._asked.clear()
                await self._asked.wait()


@pytest.fixture
def kv():
    return FaultyKV()


@pytest.fixture
async def store(kv):
    async with memory_store(FakeClock(), kv) as store:
        yield store


@pytest.fixture
def plans():
    return Plans()


@pytest.fixture
async def running(store, plans, monkeypatch):
    monkeypatch.setattr(loop, "RETRY_S", 0.01)
    work = []

    async def start():
        epoch = await lead(store)
        work.append(asyncio.ensure_future(PlanLoop(plans.planner(), store, MovingClock(), epoch).run()))
        return work[0]

    yield start
    for task in work:
        task.cancel()
        await asyncio.wait({task})


def a_service(name):
    return Service(id=new_id(), spec=ServiceSpec(name=name))


def labelled(view, key, **labels):
    service = view.get(Service, key)
    return Update(object=replace(service, spec=replace(service.spec, labels=labels)))


async def test_everything_is_planned_at_first_then_what_changed(store, plans, running):
    one, two = a_service("one"), a_service("two")
    await store.commit([Create(object=one)])
    await running()
    await plans.until(lambda: plans.asked == [one.id])
    await store.commit([Create(object=two)])
    await plans.until(lambda: plans.asked == [one.id, two.id])


async def test_a_plan_is_applied_and_its_own_change_planned_again(store, plans, running):
    web = a_service("web")
    await store.commit([Create(object=web)])

    def once(view, key, now):
        if view.get(Service, key).spec.labels:
            return Plan()
        return Plan.of([labelled(view, key, seen="yes")])

    plans.answer = once
    await running()
    await plans.until(lambda: len(plans.asked) == 2)
    assert store.view.get(Service, web.id).spec.labels == {"seen": "yes"}


async def test_an_alarm_plans_again_without_a_change(store, plans, running):
    await store.commit([Create(object=a_service("web"))])

    def wait_for_later(view, key, now):
        return Plan(wake_at=now + timedelta(milliseconds=50)) if len(plans.asked) < 3 else Plan()

    plans.answer = wait_for_later
    await running()
    await plans.until(lambda: len(plans.asked) == 3)


async def test_an_alarm_that_is_always_due_does_not_spin(store, plans, running):
    await store.commit([Create(object=a_service("web"))])
    plans.answer = lambda view, key, now: Plan(wake_at=now)
    began = asyncio.get_running_loop().time()
    await running()
    await plans.until(lambda: len(plans.asked) == 6)
    assert asyncio.get_running_loop().time() - began >= 5 * loop.LEAST_SLEEP_S


async def test_a_lost_race_is_planned_again(store, plans, running):
    web = a_service("web")
    await store.commit([Create(object=web)])
    stale = store.view.get(Service, web.id)
    await store.commit([Update(object=replace(stale, spec=ServiceSpec(name="web", labels={"by": "user"})))])

    def on_the_stale_one_first(view, key, now):
        if len(plans.asked) == 1:
            return Plan.of([Update(object=stale)])
        return Plan()

    plans.answer = on_the_stale_one_first
    await running()
    await plans.until(lambda: len(plans.asked) == 2)
    assert store.view.get(Service, web.id).spec.labels == {"by": "user"}


async def test_a_store_that_does_not_answer_is_tried_again(store, kv, plans, running):
    web = a_service("web")
    await store.commit([Create(object=web)])

    def label(view, key, now):
        done = bool(view.get(Service, key).spec.labels)
        return Plan() if done else Plan.of([labelled(view, key, seen="yes")])

    plans.answer = label
    await running()
    kv.failures = 3
    await plans.until(lambda: store.view.get(Service, web.id).spec.labels == {"seen": "yes"})
    assert len(plans.asked) >= 3


async def test_a_write_that_happens_late_is_not_decided_twice(store, kv, plans, running):
    await store.commit([Create(object=a_service("web"))])

    def one_task(view, key, now):
        return Plan() if view.list(Task) else Plan.of([Create(object=Task(id=new_id()))])

    plans.answer = one_task
    kv.late = True
    await running()
    await plans.until(lambda: len(plans.asked) == 2)
    other = a_service("other")
    await store.commit([Create(object=other)])
    await plans.until(lambda: other.id in plans.asked)
    assert len(store.view.list(Task)) == 1


async def test_one_broken_key_keeps_no_other_from_being_planned(store, plans, running):
    bad, good = a_service("bad"), a_service("good")
    await store.commit([Create(object=bad), Create(object=good)])

    def plan(view, key, now):
        if key == bad.id:
            raise KeyError("surprise")
        return Plan() if view.get(Service, key).spec.labels else Plan.of([labelled(view, key, seen="yes")])

    plans.answer = plan
    work = await running()
    await plans.until(lambda: bool(store.view.get(Service, good.id).spec.labels))
    assert not work.done()
    assert plans.asked.count(bad.id) == 1, "it is not tried in a hot loop"


async def test_a_deposed_leader_stops(store, plans, running):
    web = a_service("web")
    await store.commit([Create(object=web)])
    work = await running()
    await plans.until(lambda: len(plans.asked) == 1)
    await lead(store, "another")
    plans.answer = lambda view, key, now: Plan.of([labelled(view, key, seen="yes")])
    await store.commit([labelled(store.view, web.id, by="user")])
    with pytest.raises(LeadershipLost):
        async with asyncio.timeout(5):
            await work
    assert store.view.get(Service, web.id).spec.labels == {"by": "user"}
