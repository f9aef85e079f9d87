"""Whose database is defragmented when, and which alarms go."""

from __future__ import annotations

from swarm.manager.upkeep_plan import MemberUse, is_pressed, plan_disarm, plan_turns
from swarm.store.members import Alarm

QUOTA = 100


def use(member_id, size, used, *, leads=False):
    return MemberUse(
        member_id=member_id,
        node_id=f"n{member_id}",
        leads=leads,
        size_bytes=size,
        used_bytes=used,
        quota_bytes=QUOTA,
    )


def test_small_and_dense_databases_are_left_alone():
    assert plan_turns([use(1, 40, 1), use(2, 90, 80)], has_learner=False) == ()


def test_raft_s_leader_comes_last():
    turns = plan_turns([use(1, 90, 10, leads=True), use(3, 90, 10), use(2, 90, 10)], has_learner=False)
    assert [turn.member_id for turn in turns] == [2, 3, 1]


def test_nobody_is_stopped_while_a_learner_catches_up():
    assert plan_turns([use(1, 100, 1)], has_learner=True, pressed=True) == ()


def test_under_pressure_smaller_holes_count():
    assert plan_turns([use(1, 95, 80)], has_learner=False) == ()
    assert len(plan_turns([use(1, 95, 80)], has_learner=False, pressed=True)) == 1


def test_who_says_that_it_is_full_is_not_always_believed():
    full, roomy = use(1, 95, 95), use(2, 95, 89)
    assert plan_turns([full, roomy], has_learner=False, pressed=True) == ()
    assert plan_turns([full, roomy], has_learner=False, pressed=True, distrust=True) == (full,)
    assert plan_turns([full], has_learner=True, pressed=True, distrust=True) == ()


def test_history_goes_when_the_quota_is_near():
    assert not is_pressed([use(1, 79, 79)], [])
    assert is_pressed([use(1, 81, 81)], [])
    assert is_pressed([], [Alarm(1, "NOSPACE")])
    assert not is_pressed([], [Alarm(1, "CORRUPT")])


def test_an_alarm_is_cleared_when_there_is_room_and_a_dead_member_s_at_once():
    full, gone, broken = Alarm(1, "NOSPACE"), Alarm(9, "CORRUPT"), Alarm(2, "CORRUPT")
    alarms = [full, gone, broken]
    assert plan_disarm(alarms, [use(1, 95, 95)], [1, 2]) == (gone,)
    assert plan_disarm(alarms, [use(1, 30, 20)], [1, 2]) == (full, gone)
