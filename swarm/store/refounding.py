"""Gives what one member has to a store with a log of its own, after the quorum has been lost for good.

`--force-new-cluster` throws away what the member's log has beyond the commit index that is on its disk. That
index is written lazily: the data may contain more than the log that is left. Such a member works alone, but
one that joins it replays the log, gets other revisions, and from then on other data, and nothing in etcd
notices. So the member that is forced only serves to be read; its keys go to a new store, of which it is the
founder.

Invariant: the old data is whole until the new is. A kill at any moment: call again.
Source: etcd v3.4 server/etcdserver/raft.go (restartAsStandaloneNode), wal.go (Save syncs votes, entries).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.store import keys
from swarm.store.etcd import EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings
from swarm.store.kv import KV, Compare, KeyValue, Put

CHUNK_KEYS = 50
CHUNK_BYTES = 512 * 1024

log = get_logger("store")


async def refound(settings: EtcdSettings, token: str) -> None:
    """Replace the member's data by that of a new store with the same keys. `token` must be new.

    Raises: Unavailable when etcd does not start from the directory.
    """
    building = settings.directory / "new"
    data, new, spent = settings.directory / "data", building / "data", settings.directory / "data-old"
    if not data.exists() and new.exists():
        new.rename(data)
        return
    await asyncio.to_thread(shutil.rmtree, building, ignore_errors=True)
    async with _running(replace(settings, initial_cluster="", force_new_cluster=True)) as kv:
        found = [item for item in (await kv.list(keys.PREFIX)).items if _lasts(item.key)]
    founder = replace(
        settings, directory=building, initial_cluster="", force_new_cluster=False, cluster_token=token
    )
    async with _running(founder) as kv:
        for chunk in _chunks(found):
            await kv.txn(
                [Compare(item.key, 0) for item in chunk], [Put(item.key, item.value) for item in chunk]
            )
    await asyncio.to_thread(shutil.rmtree, spent, ignore_errors=True)
    failpoint("store.refound.copied")
    data.rename(spent)
    failpoint("store.refound.between")
    new.rename(data)
    for folder in (spent, building):
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    log.info("store.refounded", keys=len(found))


def _lasts(key: str) -> bool:
    """Who leads and which managers beat is of the old store."""
    return key not in (keys.LEADER, keys.LEADER_BEAT) and not key.startswith(keys.MANAGERS)


def _chunks(items: Sequence[KeyValue]) -> Iterator[list[KeyValue]]:
    chunk: list[KeyValue] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) == CHUNK_KEYS or size + len(item.value) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.value)
    if chunk:
        yield chunk


@asynccontextmanager
async def _running(settings: EtcdSettings) -> AsyncIterator[KV]:
    """An etcd of those settings for as long as the block lasts."""
    etcd = EtcdProcess(settings)
    async with aclosing(EtcdKV(settings.files.address())) as kv:
        work = asyncio.ensure_future(etcd.run())
        try:
            await etcd.serving()
            yield kv
        finally:
            work.cancel()
            await asyncio.wait({work})
