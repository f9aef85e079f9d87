"""What is said of a store in trouble."""

from __future__ import annotations

import pytest

from swarm.store.etcd_process import support_of
from swarm.store.health import (
    DISK_ROOM_BYTES,
    Health,
    MemberFacts,
    StoreState,
    classify_exit,
    judge,
    may_start,
)

FREE = 1 << 30


def facts(**changes):
    sound = {
        "has_leader": True,
        "is_learner": False,
        "alarms": (),
        "own_alarms": (),
        "free_bytes": FREE,
        "silent_s": 0.1,
        "finding": "",
        "commits_s": (0.003, 0.004, 0.002),
    }
    return MemberFacts(**(sound | changes))


@pytest.mark.parametrize(
    ("output", "state"),
    [
        ("panic: write /d/member/wal/0.tmp: no space left on device", StoreState.DISK_FULL),
        ('{"level":"fatal","msg":"failed to open WAL","error":"walpb: crc mismatch"}', StoreState.CORRUPT),
        (
            '{"level":"panic","msg":"failed to recover v3 backend","error":"invalid database"}',
            StoreState.CORRUPT,
        ),
        ("snap: crc mismatch", StoreState.CORRUPT),
        (
            '{"level":"fatal","msg":"failed to unmarshal mvccpb.KeyValue","error":"proto: illegal tag"}',
            StoreState.CORRUPT,
        ),
        (
            "panic: runtime error: slice bounds out of range [::4278190227] with length 2147483647\n\n"
            "goroutine 139 [running]:\ngo.etcd.io/bbolt.unsafeByteSlice(...)",
            StoreState.CORRUPT,
        ),
        (
            '{"level":"warn","msg":"lost TCP streaming connection","error":"unexpected EOF"}\n'
            '{"level":"fatal","msg":"failed to save Raft hard state","error":"input/output error"}',
            StoreState.FAILED,
        ),
        (
            '{"level":"warn","msg":"lost TCP streaming connection","error":"unexpected EOF"}',
            StoreState.FAILED,
        ),
        ("the member has been permanently removed from the cluster", StoreState.REMOVED),
        ("listen tcp 10.0.0.1:2381: bind: address already in use", StoreState.PORT_IN_USE),
        ("something new", StoreState.FAILED),
        ("", StoreState.FAILED),
    ],
)
def test_why_etcd_ended(output, state):
    health = classify_exit(output, "/d", FREE)
    assert health.state is state
    assert health.message
    assert "\n" not in health.message


def test_on_a_full_disk_etcd_may_not_even_say_so():
    assert classify_exit("", "/d", 0).state is StoreState.DISK_FULL


def test_a_start_on_a_full_disk_waits_for_room():
    full = Health(state=StoreState.DISK_FULL)
    assert not may_start(full, DISK_ROOM_BYTES - 1)
    assert may_start(full, DISK_ROOM_BYTES)
    assert may_start(Health(state=StoreState.CORRUPT), 0)
    assert may_start(None, 0)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, StoreState.OK),
        ({"commits_s": ()}, StoreState.OK),
        ({"commits_s": (0.5, 0.01, 0.01)}, StoreState.OK),
        ({"commits_s": (0.5, 0.6, 0.01)}, StoreState.SLOW),
        ({"free_bytes": 4096}, StoreState.DISK_FULL),
        ({"has_leader": False}, StoreState.NO_QUORUM),
        ({"silent_s": 5.0}, StoreState.NO_QUORUM),
        ({"alarms": ("NOSPACE",)}, StoreState.ALARM),
        ({"alarms": ("NOSPACE",), "silent_s": 60.0}, StoreState.ALARM),
        ({"alarms": ("CORRUPT",)}, StoreState.ALARM),
        ({"alarms": ("CORRUPT",), "own_alarms": ("CORRUPT",)}, StoreState.CORRUPT),
    ],
)
def test_a_member_that_runs_is_judged(changes, state):
    assert judge(facts(**changes)).state is state


def test_old_versions_are_tolerated():
    assert support_of("3.4.23").startswith("tolerated")
    assert support_of("3.6.1") == "supported"


def test_what_speaks_against_the_data_comes_before_the_rest():
    health = judge(facts(finding="the data differ", silent_s=60, alarms=("NOSPACE",)))
    assert health.state is StoreState.CORRUPT
    assert health.message.startswith("the data differ: ")
    assert "swarm system repair" in health.message
