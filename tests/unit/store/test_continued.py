"""Revisions of a store that follows another one: higher than all before, and none of before is one of now."""

from __future__ import annotations

import asyncio

import pytest

from swarm.base.errors import Unavailable
from swarm.store import keys
from swarm.store.continued import MARGIN, ContinuedKV, continue_after
from swarm.store.kv import Compare, Put
from swarm.store.memory import MemoryKV

BEFORE = 400
"""Where the former store had come to."""


@pytest.fixture
async def kv():
    inner = MemoryKV()
    await continue_after(inner, BEFORE)
    return ContinuedKV(inner)


async def test_every_revision_is_later_than_those_of_the_former_store(kv):
    written = await kv.txn([], [Put("/a", b"1")])
    assert BEFORE + MARGIN < written.revision == await kv.revision() == (await kv.get("/a")).mod_revision
    assert (await kv.list("/")).revision == written.revision


@pytest.mark.parametrize("kept", range(1, 6))
async def test_a_version_of_before_is_none_of_now(kv, kept):
    await kv.txn([], [Put("/a", b"1")])
    assert not (await kv.txn([Compare("/a", kept)], [Put("/a", b"2")])).succeeded
    assert (await kv.get("/a")).value == b"1"


async def test_a_leader_of_before_is_fenced_and_its_successor_s_epoch_is_higher(kv):
    epoch = (await kv.txn([Compare(keys.LEADER, 0)], [Put(keys.LEADER, b"n1")])).revision
    assert epoch > BEFORE
    old = await kv.txn([Compare(keys.LEADER, 3)], [Put("/a", b"1")])
    assert (old.succeeded, old.failed) == (False, (keys.LEADER,))
    assert (await kv.txn([Compare(keys.LEADER, epoch)], [Put("/a", b"1")])).succeeded


async def test_a_watch_goes_on_from_a_listing(kv):
    listing = await kv.list("/")
    written = await kv.txn([], [Put("/a", b"1")])
    async with asyncio.timeout(5):
        batch = await anext(kv.watch("/", listing.revision + 1))
    assert (batch.revision, batch.puts[0].mod_revision) == (written.revision, written.revision)


async def test_without_a_former_store_nothing_is_added():
    inner = MemoryKV()
    written = await ContinuedKV(inner).txn([], [Put("/a", b"1")])
    assert written.revision == await inner.revision()


async def test_a_base_is_set_once():
    inner = MemoryKV()
    await continue_after(inner, 1)
    with pytest.raises(Unavailable, match="not empty"):
        await continue_after(inner, 2)
