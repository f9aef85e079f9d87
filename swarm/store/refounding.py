"""Gives what one member has to a store with a log of its own, after the quorum has been lost for good.

`--force-new-cluster` throws away what the member's log has beyond the commit index that is on its disk. That
index is written lazily: the data may contain more than the log that is left. Such a member works alone, but
one that joins it replays the log, gets other revisions, and from then on other data, and nothing in etcd
notices. So the member that is forced only serves to be read; its keys go to a new store, of which it is the
founder, and whose revisions go on where the old ones ended (`continued.py`).

Invariant: the old data is whole until the new is. A kill at any moment: call again.
Source: etcd v3.4 etcdserver/raft.go (restartAsStandaloneNode), wal/wal.go (Save syncs on votes and entries).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.store import keys
from swarm.store.continued import ContinuedKV, continue_after
from swarm.store.etcd import EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings
from swarm.store.kv import Compare, KeyValue, Put

CHUNK_KEYS = 50
CHUNK_BYTES = 512 * 1024

log = get_logger("store")


async def refound(settings: EtcdSettings, mark: str) -> None:
    """Replace the member's data by that of a new store with the same keys. `mark` must be new.

    Raises: Unavailable, within a group, when etcd does not start or answer; nothing is lost then.
    """
    building = settings.directory / "new"
    data, new, spent = settings.directory / "data", building / "data", settings.directory / "data-old"
    if data.exists():
        await _remove(building)
        await _copy(settings, building, mark)
        await _remove(spent)
        failpoint("store.refound.copied")
        data.rename(spent)
        failpoint("store.refound.between")
    if new.exists():
        new.rename(data)
        _flush(settings.directory)
    await _remove(spent)
    await _remove(building)


async def _copy(settings: EtcdSettings, building: Path, mark: str) -> None:
    """All that lasts, to a new store in `building`."""
    old = replace(settings, initial_cluster="", force_new_cluster=True)
    async with _running(old) as kv:
        found = await ContinuedKV(kv).list(keys.PREFIX)
    lasting = [item for item in found.items if _lasts(item.key)]
    new = replace(settings, directory=building, initial_cluster="", store_mark=mark, has_begun=False)
    async with _running(new) as kv:
        await continue_after(kv, found.revision)
        for chunk in _chunks(lasting):
            await kv.txn(
                [Compare(item.key, 0) for item in chunk], [Put(item.key, item.value) for item in chunk]
            )
    log.info("store.refounded", keys=len(lasting), after_revision=found.revision)


def _lasts(key: str) -> bool:
    """Who leads, which managers beat, and where its revisions began is of the old store."""
    return key not in (keys.LEADER, keys.LEADER_BEAT, keys.BASE) and not key.startswith(keys.MANAGERS)


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
async def _running(settings: EtcdSettings) -> AsyncIterator[EtcdKV]:
    """An etcd of those settings for as long as the block lasts."""
    etcd = EtcdProcess(settings)
    async with aclosing(EtcdKV(settings.files.address())) as kv, asyncio.TaskGroup() as group:
        work = group.create_task(etcd.run())
        await etcd.serving()
        yield kv
        work.cancel()


async def _remove(directory: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _flush(directory: Path) -> None:
    """What was renamed in it stays so through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
