"""Writes to the store as events, and the ring that keeps them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import InvalidArgument
from swarm.manager.events.derive import events_of
from swarm.manager.events.feed import EventFeed
from swarm.manager.events.ring import EventRing
from swarm.model.events import GAP, Event, Position, parse_position, whole_revision
from swarm.model.objects import Config, ManagerStatus, Node, Payload, ScalingStatus, Secret, Service, Task
from swarm.model.plan import Create, Delete, Update
from swarm.model.specs import ConfigSpec, ReplicatedMode, SecretSpec, ServiceMode, ServiceSpec
from swarm.model.task_state import TaskState
from swarm.model.types import Availability, Meta, NodeState, UpdateState, UpdateStatus
from swarm.model.view import Objects
from swarm.secrets.box import new_data_key
from swarm.secrets.keyring import Keyring
from swarm.store.changes import Change, LeaderWritten, Written
from swarm.store.memory import MemoryKV
from swarm.store.store import Store
from tests.fakes.fake_backend import a_node

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)


def written(old, new, revision=7, view=None) -> tuple[Event, ...]:
    return events_of(Written(revision, "key", Change(old, new)), view or Objects(), NOW)


def a_service(**more) -> Service:
    mode = ServiceMode(replicated=ReplicatedMode(replicas=more.pop("replicas", 1)))
    return Service(id="s1", meta=Meta(updated_at=LATER), spec=ServiceSpec(name="web", mode=mode), **more)


def a_task(state=TaskState.PENDING, **more) -> Task:
    task = Task(id="t1", service_id="s1", service_name="web", slot=2, **more)
    return replace(task, status=replace(task.status, state=state), meta=Meta(updated_at=LATER))


def test_create_and_remove_carry_name_time_and_position() -> None:
    (created,) = written(None, a_service())
    assert created == Event(
        position=Position(7, "service", "s1"),
        time=LATER,
        type="service",
        action="create",
        id="s1",
        attributes={"name": "web"},
    )
    (removed,) = written(a_service(), None)
    assert (removed.action, removed.time) == ("remove", NOW)


def test_scaling_and_updates_say_what_changed_and_why() -> None:
    done = UpdateStatus(state=UpdateState.PAUSED, message="task t9 failed")
    old = a_service(update_status=UpdateStatus(state=UpdateState.UPDATING))
    scaling = ScalingStatus(replicas=3, message="cpu 91% of 70%")
    (event,) = written(old, a_service(replicas=3, update_status=done, scaling=scaling))
    assert event.attributes == {
        "name": "web",
        "replicas.old": "1",
        "replicas.new": "3",
        "updatestate.old": "updating",
        "updatestate.new": "paused",
        "updatestate.message": "task t9 failed",
        "scaling.message": "cpu 91% of 70%",
    }


def test_a_first_update_has_no_old_state() -> None:
    (event,) = written(a_service(), a_service(update_status=UpdateStatus(state=UpdateState.UPDATING)))
    assert event.attributes == {"name": "web", "updatestate.new": "updating"}


def test_a_task_says_where_it_went_and_why_it_waits() -> None:
    view = Objects([a_node(1)])
    waiting = a_task()
    refused = replace(waiting, status=replace(waiting.status, err="no suitable node"))
    (event,) = written(waiting, refused, view=view)
    assert event.attributes["error"] == "no suitable node"
    node_id = a_node(1).id
    (event,) = written(refused, a_task(TaskState.ASSIGNED, node_id=node_id), view=view)
    assert event.attributes == {
        "name": "web.2.t1",
        "service.id": "s1",
        "service.name": "web",
        "slot": "2",
        "node.id": node_id,
        "node.name": "h1",
        "state.old": "pending",
        "state.new": "assigned",
        "node.new": node_id,
    }


def test_what_nobody_asks_for_is_no_event() -> None:
    task = a_task()
    assert written(task, replace(task, status=replace(task.status, timestamp=LATER))) == ()
    node = a_node(1)
    assert written(node, replace(node, status=replace(node.status, manager_id="other"))) == ()
    assert written(a_service(), a_service()) == ()


@pytest.mark.parametrize(("kind", "spec"), [(Secret, SecretSpec), (Config, ConfigSpec)])
def test_secrets_and_configs_and_that_their_data_make_no_event(kind, spec) -> None:
    item = kind(id="k1", spec=spec(name="n"))
    (created,) = written(None, item)
    assert (created.type, created.action, created.attributes) == (
        kind.__name__.lower(),
        "create",
        {"name": "n"},
    )
    (updated,) = written(item, replace(item, spec=spec(name="n", labels={"a": "b"})))
    assert updated.action == "update"
    assert written(item, replace(item, current=2, last=2)) != ()
    assert written(item, replace(item, meta=Meta(updated_at=LATER))) == ()
    assert written(item, None)[0].action == "remove"
    assert written(None, Payload(id="k1.1", data=b"x")) == ()


def test_nodes_have_dockers_attributes() -> None:
    node = replace(a_node(1), manager_status=ManagerStatus(addr="10.7.0.1:2377"))
    down = replace(node, status=replace(node.status, state=NodeState.DOWN))
    (event,) = written(node, replace(down, spec=replace(node.spec, availability=Availability.DRAIN)))
    assert event.attributes == {
        "name": "h1",
        "state.old": "ready",
        "state.new": "down",
        "availability.old": "active",
        "availability.new": "drain",
        "reachability.old": "reachable",
        "reachability.new": "unreachable",
    }


def test_leadership_is_told_of_both_nodes() -> None:
    old, new = a_node(1), a_node(2)
    events = events_of(LeaderWritten(9, "leader", old.id, new.id), Objects([old, new]), NOW)
    assert [(e.attributes["name"], e.attributes["leader.new"]) for e in events] == [
        ("h1", "false"),
        ("h2", "true"),
    ]


# --- the ring -------------------------------------------------------------------------------------------


def an_event(revision: int) -> Event:
    return Event(
        position=Position(revision, "task", "t"),
        time=NOW + timedelta(seconds=revision),
        type="task",
        action="update",
        id="t",
    )


def told(ring: EventRing, since) -> list[int | str]:
    events, _ = ring.read(ring.start(since, NOW), NOW)
    return [e.action if e.action == GAP else e.position.revision for e in events]


def test_a_reader_begins_now_at_a_time_or_after_what_it_heard() -> None:
    ring = EventRing(10, NOW)
    ring.append(map(an_event, (11, 12, 13)))
    assert told(ring, None) == []
    assert told(ring, NOW + timedelta(seconds=12)) == [12, 13]
    assert told(ring, an_event(12).position) == [13]
    assert told(ring, whole_revision(10)) == [11, 12, 13]


def test_what_left_the_ring_is_a_gap_to_new_and_old_readers() -> None:
    ring = EventRing(10, NOW, capacity=2)
    slow = ring.start(None, NOW)
    ring.append(map(an_event, (11, 12, 13, 14)))
    assert told(ring, an_event(11).position) == [GAP, 13, 14]
    assert told(ring, an_event(12).position) == [13, 14]
    assert told(ring, NOW + timedelta(seconds=11)) == [GAP, 13, 14]
    events, place = ring.read(slow, NOW)
    assert [e.action for e in events] == [GAP, "update", "update"]
    assert ring.read(place, NOW)[0] == ()


def test_going_on_after_a_gap_says_it_once() -> None:
    ring = EventRing(10, NOW, capacity=1)
    ring.append(map(an_event, (11, 12)))
    (gap, _), _ = ring.read(ring.start(Position(5), NOW), NOW)
    assert told(ring, parse_position(str(gap.position))) == [12]


def test_what_nobody_saw_is_a_gap_in_its_place() -> None:
    ring = EventRing(10, NOW)
    ring.append([an_event(11)])
    ring.lose(20, NOW)
    ring.append([an_event(20)])
    assert told(ring, whole_revision(10)) == [11, GAP, 20]


@pytest.mark.parametrize("text", ["", "web", "-1", "1x/task/t", "²"])
def test_a_position_is_what_an_event_said(text) -> None:
    with pytest.raises(InvalidArgument, match="invalid position"):
        parse_position(text)


def test_positions_round_trip() -> None:
    assert parse_position(str(Position(7, "task", "t1"))) == Position(7, "task", "t1")
    assert parse_position("7") > Position(7, "task", "t1")


# --- from the store -------------------------------------------------------------------------------------


async def test_two_managers_tell_the_same_events_at_the_same_positions() -> None:
    clock, kv, ring = FakeClock(), MemoryKV(), Keyring([new_data_key()])
    stores = [Store(kv, ring, clock), Store(kv, ring, clock)]
    feeds = []
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(store.run()) for store in stores]
        for store in stores:
            await store.ready()
        for store in stores:
            feeds.append(EventFeed(store, clock))
            running.append(group.create_task(feeds[-1].run()))
        heard = [feed.read() for feed in feeds]
        firsts = [group.create_task(anext(events)) for events in heard]
        await asyncio.sleep(0)
        await stores[0].commit([Create(object=a_service())])
        stored = stores[0].view.get(Service, "s1")
        await stores[0].commit(
            [Create(object=Node(id="n1")), Update(object=replace(stored, spec=a_service(replicas=2).spec))]
        )
        await stores[0].commit([Delete(object=stores[0].view.get(Service, "s1"))])
        lists = []
        for first, events in zip(firsts, heard, strict=True):
            lists.append([await first, *[await anext(events) for _ in range(3)]])
            await events.aclose()
        for task in running:
            task.cancel()
    assert [(e.type, e.action) for e in lists[0]] == [
        ("service", "create"),
        ("node", "create"),
        ("service", "update"),
        ("service", "remove"),
    ]
    assert lists[0] == lists[1]
