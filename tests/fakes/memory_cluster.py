"""A real store over the in-memory key-value service, with its mirror running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from swarm.base.clock import Clock
from swarm.secrets.box import new_data_key
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.kv import Compare, Put
from swarm.store.memory import MemoryKV
from swarm.store.store import Store


@asynccontextmanager
async def memory_store(
    clock: Clock, kv: MemoryKV | None = None, ring: Keyring | None = None
) -> AsyncIterator[Store]:
    store = Store(kv or MemoryKV(), ring or Keyring([new_data_key()]), clock)
    running = asyncio.ensure_future(store.run())
    await store.ready()
    try:
        yield store
    finally:
        running.cancel()
        await asyncio.wait({running})


async def lead(store: Store, name: str = "me") -> int:
    """Take the leader's seat, whoever holds it; returns the epoch."""
    held = store.raw(keys.LEADER)
    revision = held.mod_revision if held else 0
    epoch = await store.write_raw([Compare(keys.LEADER, revision)], [Put(keys.LEADER, name.encode())])
    assert epoch is not None
    await store.raw_there(keys.LEADER)
    return epoch
