"""Who is suspect and who is down; a manager that stood still blames nobody for what it could not hear."""

from __future__ import annotations

from swarm.base.ids import NodeID
from swarm.manager.dispatcher.sessions import Sessions

NODE = NodeID("n1")


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

    assert sessions.mark_late(1.9) == ()
    assert sessions.mark_late(2.0) == (NODE,)
    assert sessions.is_broken(NODE)
    assert sessions.mark_late(2.25) == ()

    sessions.beat(NODE, "s", now=2.4)

    assert sessions.mark_late(2.5) == ()
    assert sessions.list_whole() == (NODE,)
