"""A store over its quota is freed by a member whose own count of what it uses stands still."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from swarm.base.clock import FakeClock
from swarm.manager.upkeep import ALARMED_EVERY_S, LOOK_EVERY_S, PRESSED_EVERY_S, OwnMember, StoreKeeper
from swarm.store.members import Alarm, Member, MemberStatus
from tests.fakes.memory_cluster import memory_store

QUOTA = 100


class FullMember:
    """The only member, full; what a compaction frees of it is counted with a write or a defragmentation."""

    def __init__(self) -> None:
        self.revision = 7
        self.used_bytes = self.told_bytes = 97
        self.history_bytes = 70
        self.done: list[str] = []
        self.is_alarmed = True

    async def list(self):
        return (Member(1, "n1", "https://192.0.2.1:2381", False),)

    async def status(self):
        return MemberStatus(1, "3.4.23", 1, 9, False, 97, self.told_bytes)

    async def alarms(self):
        return (Alarm(1, "NOSPACE"),) if self.is_alarmed else ()

    async def compact(self, revision):
        self.done.append("compact")
        self.used_bytes -= self.history_bytes
        self.history_bytes = 0

    async def defragment(self):
        self.done.append("defragment")
        self.told_bytes = self.used_bytes

    async def disarm(self, alarm):
        self.done.append("disarm")
        self.is_alarmed = False


@pytest.fixture
async def kept():
    """(the member, its keeper, the keeper's clock)"""
    member, clock = FullMember(), FakeClock()

    async def revision():
        return member.revision

    own = OwnMember(
        members=member,
        compactor=SimpleNamespace(revision=revision, compact=member.compact),
        quota_bytes=QUOTA,
        free_bytes=lambda: 1 << 30,
        problem=lambda: None,
    )
    identity = SimpleNamespace(subject=SimpleNamespace(node_id="n1"))
    async with memory_store(clock) as store:
        yield member, StoreKeeper(store, own, SimpleNamespace(commits_s=()), clock, lambda: identity), clock


async def look(keeper, clock, seconds=LOOK_EVERY_S):
    clock.advance(timedelta(seconds=seconds))
    await keeper._keep(keeper._own)


async def test_a_member_that_says_it_is_full_is_defragmented_once_history_is_gone(kept):
    member, keeper, clock = kept
    await look(keeper, clock)
    assert member.done == ["compact"]
    await look(keeper, clock)
    assert member.done == ["compact", "defragment", "disarm"]


async def test_a_store_that_is_really_full_is_seldom_defragmented(kept):
    member, keeper, clock = kept
    member.history_bytes = 0
    for _ in range(4):
        await look(keeper, clock, ALARMED_EVERY_S)
        await look(keeper, clock)
    assert member.done.count("defragment") == 1
    assert "disarm" not in member.done
    await look(keeper, clock, PRESSED_EVERY_S)
    await look(keeper, clock)
    assert member.done.count("defragment") == 2
