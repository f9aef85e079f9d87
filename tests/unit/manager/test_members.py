"""Managers that leave: what is left when that is cut short, and who finishes it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from swarm.base import failpoint
from swarm.base.clock import FakeClock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID
from swarm.manager.members import RoleManager, leave_store
from swarm.model.objects import ManagerStatus, Node
from swarm.model.plan import Create
from swarm.model.specs import NodeSpec
from swarm.model.types import NodeRole
from swarm.store.etcd import FULL
from swarm.store.members import Member
from swarm.store.memory import MemoryKV
from tests.fakes.memory_cluster import memory_store

ME, LEAVER = NodeID("me"), NodeID("leaver")


class FakeMembers:
    """Etcd's members by id."""

    def __init__(self) -> None:
        self.members = {1: Member(1, ME, "https://10.0.0.1:2380", False)}
        self.members[2] = Member(2, LEAVER, "https://10.0.0.2:2380", False)

    async def list(self):
        return tuple(self.members.values())

    async def remove(self, member_id):
        self.members.pop(member_id, None)


@pytest.fixture
async def store():
    async with memory_store(FakeClock()) as made:
        for number, node_id in enumerate((ME, LEAVER), start=1):
            status = ManagerStatus(addr=f"10.0.0.{number}:2377", member_id=f"{number:x}")
            spec = NodeSpec(role=NodeRole.MANAGER)
            await made.commit([Create(object=Node(id=node_id, spec=spec, manager_status=status))])
        yield made
    failpoint.arm("")


def leaver(store):
    return store.view.get(Node, LEAVER)


async def test_a_manager_that_leaves_is_out_of_the_store_and_the_records(store):
    members = FakeMembers()
    await leave_store(store, members, leaver(store))
    assert list(members.members) == [1]
    assert (leaver(store).spec.role, leaver(store).manager_status) == (NodeRole.WORKER, None)


@pytest.mark.parametrize("point", ["members.leave.wanted", "members.remove.before", "members.remove.removed"])
async def test_a_leave_that_is_cut_short_is_finished_by_the_leader(store, point):
    members = FakeMembers()
    failpoint.arm(f"{point}:1:error")
    with pytest.raises(Unavailable):
        await leave_store(store, members, leaver(store))
    leading = asyncio.ensure_future(RoleManager(store, FakeClock(), members, ME, lambda _: True).run())
    try:
        async with asyncio.timeout(5):
            with store.changes(Node) as changes:
                while leaver(store).manager_status is not None:
                    await changes.wait()
    finally:
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading
    assert list(members.members) == [1]
    assert leaver(store).spec.role is NodeRole.WORKER


class FullKV(MemoryKV):
    """Its quota may be used up."""

    is_full = False

    async def txn(self, compares, writes):
        if self.is_full:
            raise Unavailable(FULL)
        return await super().txn(compares, writes)


async def test_a_full_store_lets_a_manager_go_and_has_it_written_down_when_it_asks_again():
    kv, members = FullKV(), FakeMembers()
    async with memory_store(FakeClock(), kv) as store:
        status = ManagerStatus(addr="10.0.0.2:2377", member_id="2")
        spec = NodeSpec(role=NodeRole.MANAGER)
        await store.commit([Create(object=Node(id=LEAVER, spec=spec, manager_status=status))])
        kv.is_full = True
        with pytest.raises(Unavailable):
            await leave_store(store, members, leaver(store))
        assert list(members.members) == [1], "or what is left of it has no quorum"
        kv.is_full = False
        await leave_store(store, members, leaver(store))
        assert (leaver(store).spec.role, leaver(store).manager_status) == (NodeRole.WORKER, None)
