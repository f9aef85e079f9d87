"""What every key-value service under the store must promise: the same tests for memory and etcd."""

from __future__ import annotations

import asyncio

import pytest

from swarm.store.kv import Compare, Delete, Put, WatchLost


async def collect(watch, count):
    batches = []
    async with asyncio.timeout(5):
        async for batch in watch:
            batches.append(batch)
            if sum(len(b.puts) + len(b.deletes) for b in batches) >= count:
                break
    return batches


async def test_a_transaction_writes_all_with_one_revision(kv, prefix):
    result = await kv.txn([], [Put(prefix + "a", b"1"), Put(prefix + "b", b"2")])
    listing = await kv.list(prefix)
    assert result.succeeded
    assert [(i.key, i.value) for i in listing.items] == [(prefix + "a", b"1"), (prefix + "b", b"2")]
    assert {i.mod_revision for i in listing.items} == {result.revision}


async def test_a_failed_compare_writes_nothing_and_is_named(kv, prefix):
    first = await kv.txn([Compare(prefix + "a", 0)], [Put(prefix + "a", b"1")])
    second = await kv.txn(
        [Compare(prefix + "a", 0), Compare(prefix + "b", 0)], [Put(prefix + "b", b"2"), Delete(prefix + "a")]
    )
    assert not second.succeeded
    assert second.failed == (prefix + "a",)
    assert [(i.key, i.mod_revision) for i in (await kv.list(prefix)).items] == [
        (prefix + "a", first.revision)
    ]


async def test_compare_and_swap_by_revision(kv, prefix):
    first = await kv.txn([], [Put(prefix + "a", b"1")])
    assert (await kv.txn([Compare(prefix + "a", first.revision)], [Put(prefix + "a", b"2")])).succeeded
    assert not (await kv.txn([Compare(prefix + "a", first.revision)], [Put(prefix + "a", b"3")])).succeeded
    assert (await kv.get(prefix + "a")).value == b"2"


async def test_get_of_a_missing_key(kv, prefix):
    assert await kv.get(prefix + "none") is None


async def test_deleting_and_deleting_again(kv, prefix):
    await kv.txn([], [Put(prefix + "a", b"1")])
    await kv.txn([], [Delete(prefix + "a")])
    await kv.txn([], [Delete(prefix + "a")])
    assert (await kv.list(prefix)).items == ()


async def test_watch_from_a_listing_misses_nothing(kv, prefix):
    await kv.txn([], [Put(prefix + "a", b"1")])
    listing = await kv.list(prefix)
    await kv.txn([], [Put(prefix + "a", b"2"), Put(prefix + "b", b"1")])
    await kv.txn([], [Delete(prefix + "b")])
    batches = await collect(kv.watch(prefix, listing.revision + 1), 2)
    seen = {i.key: i.value for b in batches for i in b.puts}
    assert seen[prefix + "a"] == b"2"
    assert all(b.revision > listing.revision for b in batches)


async def test_watch_sees_what_comes_later_in_order(kv, prefix):
    listing = await kv.list(prefix)
    watching = asyncio.ensure_future(collect(kv.watch(prefix, listing.revision + 1), 20))
    for n in range(20):
        await kv.txn([], [Put(f"{prefix}{n:02}", b"x")])
    batches = await watching
    assert [i.key for b in batches for i in b.puts] == [f"{prefix}{n:02}" for n in range(20)]
    assert [b.revision for b in batches] == sorted({b.revision for b in batches})


async def test_watch_never_splits_a_transaction(kv, prefix):
    listing = await kv.list(prefix)
    await kv.txn([], [Put(f"{prefix}{n:02}", b"x" * 1000) for n in range(100)])
    (batch,) = await collect(kv.watch(prefix, listing.revision + 1), 100)
    assert len(batch.puts) == 100


async def test_watch_ignores_other_prefixes(kv, prefix):
    listing = await kv.list(prefix)
    await kv.txn([], [Put("/elsewhere/a", b"1")])
    await kv.txn([], [Put(prefix + "a", b"1")])
    (batch,) = await collect(kv.watch(prefix, listing.revision + 1), 1)
    assert [i.key for i in batch.puts] == [prefix + "a"]


async def test_watch_from_before_a_compaction_is_lost(kv, prefix):
    start = (await kv.list(prefix)).revision + 1
    for n in range(3):
        last = await kv.txn([], [Put(prefix + "a", str(n).encode())])
    await kv.compact(last.revision)
    with pytest.raises(WatchLost):
        await collect(kv.watch(prefix, start), 1)


async def test_list_pages_are_one_snapshot(kv, prefix):
    for start in range(0, 2500, 100):
        await kv.txn([], [Put(f"{prefix}{n:05}", b"x") for n in range(start, start + 100)])
    assert len((await kv.list(prefix)).items) == 2500


async def test_racing_writers_one_wins(kv, prefix):
    results = await asyncio.gather(
        *(kv.txn([Compare(prefix + "a", 0)], [Put(prefix + "a", str(n).encode())]) for n in range(10))
    )
    assert sum(r.succeeded for r in results) == 1
