"""Who is suspect and who is down; a manager that stood still blames nobody for what it could not hear."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from swarm.base.clock import FakeClock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID
from swarm.manager.beats import BEAT_EVERY_S, GONE_AFTER_S, SILENT_FOR_S, STARTING_FOR_S, ManagerBeats
from swarm.manager.dispatcher.sessions import Sessions
from swarm.manager.liveness import plan_lost_nodes
from swarm.model.objects import Node, NodeStatus
from swarm.model.types import NodeState
from swarm.model.view import Objects
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.kv import Put
from swarm.store.memory import MemoryKV
from tests.fakes.memory_cluster import memory_store

NODE = NodeID("n1")
RING = Keyring([bytes(32)])
NOW = datetime(2025, 1, 1, tzinfo=UTC)


def test_a_standstill_of_the_manager_is_no_silence_of_the_node():
    sessions = Sessions(silence_s=4.0)
    sessions.open(NODE, "s", now=0.0)

    sessions.excuse(10.0, now=11.0)

    assert sessions.expire(11.0) == ()
    assert sessions.expire(13.9) == ()
    assert sessions.expire(14.0) == (NODE,)


def test_an_excuse_gives_no_credit_for_the_future():
    sessions = Sessions(silence_s=4.0)
    sessions.open(NODE, "s", now=11.0)

    sessions.excuse(10.0, now=11.0)

    assert sessions.expire(15.0) == (NODE,)


def test_a_node_whose_heartbeat_is_overdue_is_suspect_until_it_is_heard():
    sessions = Sessions(silence_s=4.0)
    sessions.open(NODE, "s", now=0.0)
    sessions.book(NODE, "s")

    assert sessions.mark_late(1.9) == ()
    assert sessions.mark_late(2.0) == (NODE,)
    assert sessions.is_broken(NODE)
    assert sessions.mark_late(2.25) == ()

    sessions.beat(NODE, "s", now=2.4)

    assert sessions.mark_late(2.5) == ()
    assert sessions.list_whole() == (NODE,)


# --- what the leader concludes -----------------------------------------------------------------------------


def booked(node_id, manager_id, state):
    return Node(id=NodeID(node_id), status=NodeStatus(state=state, manager_id=NodeID(manager_id)))


def test_nodes_of_a_manager_that_has_gone_and_overdue_ones_are_down():
    view = Objects(
        [
            booked("a", "gone", NodeState.READY),
            booked("b", "gone", NodeState.UNKNOWN),
            booked("c", "here", NodeState.READY),
            booked("d", "gone", NodeState.DOWN),
            booked("e", "", NodeState.UNKNOWN),
            booked("f", "", NodeState.UNKNOWN),
        ]
    )
    plan = plan_lost_nodes(view, NOW, lambda manager: manager == "gone", {NodeID("f")})
    found = {op.object.id: (op.object.status.state, op.object.status.message) for op in plan.ops}
    assert found == {
        "a": (NodeState.DOWN, "its manager is not reachable"),
        "b": (NodeState.DOWN, "its manager is not reachable"),
        "f": (NodeState.DOWN, "it has not turned up"),
    }


async def test_a_manager_that_beat_once_is_gone_sooner_than_one_never_heard():
    clock = FakeClock()
    async with memory_store(clock) as store:
        beats = ManagerBeats(store, clock, NodeID("me"), RING)
        await store.write_raw((), (Put(keys.MANAGERS + "m1", b"1"), Put(keys.MANAGERS + "m2", b"1")))
        await store.sync()
        assert beats.is_reachable(NodeID("m1"))
        assert not beats.has_gone(NodeID("m2"))
        await store.write_raw((), (Put(keys.MANAGERS + "m1", b"2"),))
        await store.sync()
        assert beats.is_reachable(NodeID("m1"))
        clock.advance(timedelta(seconds=SILENT_FOR_S))
        assert not beats.is_reachable(NodeID("m1"))
        assert not beats.has_gone(NodeID("m1")), "its nodes get time to move"
        clock.advance(timedelta(seconds=GONE_AFTER_S - SILENT_FOR_S))
        assert beats.has_gone(NodeID("m1"))
        assert not beats.has_gone(NodeID("m2"))
        clock.advance(timedelta(seconds=STARTING_FOR_S - GONE_AFTER_S))
        assert beats.has_gone(NodeID("m2"))
        assert not beats.has_gone(NodeID("me"))


class RefusesBeats(MemoryKV):
    """Has lost its quorum and says so at once."""

    refused = 0

    async def txn(self, compares, writes):
        self.refused += 1
        raise Unavailable("no quorum")


async def test_a_beat_that_is_refused_at_once_is_not_repeated_at_once():
    clock, kv = FakeClock(), RefusesBeats()
    async with memory_store(clock, kv) as store:
        beating = asyncio.ensure_future(ManagerBeats(store, clock, NodeID("me"), RING).run())
        await asyncio.wait({beating}, timeout=BEAT_EVERY_S / 2)
        beating.cancel()
        await asyncio.wait({beating})
    assert kv.refused == 1
