"""A program that campaigns and, while it leads, writes: `leader_program.py TARGET PKI NAME fenced|unfenced`.

Each write makes one task whose id tells its epoch. Out: a line `leads EPOCH` or `lost EPOCH` as it happens.
Unfenced, its writes do not compare the leader's key: what a leader would be without that.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import Unavailable
from swarm.base.ids import NodeID, TaskID
from swarm.manager.ca.etcd_ca import etcd_files
from swarm.model.objects import Task
from swarm.model.plan import Create
from swarm.secrets.keyring import Keyring
from swarm.store.election import Election
from swarm.store.etcd import EtcdKV
from swarm.store.store import Store

DATA_KEY = bytes(32)
"""All of them share it."""


async def main(target: str, pki: Path, name: str, *, fenced: bool) -> None:
    kv = EtcdKV(replace(etcd_files(pki).address(), target=target))
    store, clock = Store(kv, Keyring([DATA_KEY]), SystemClock()), SystemClock()

    async def lead(epoch: int) -> None:
        print("leads", epoch, flush=True)
        try:
            for number in count():
                task = Task(id=TaskID(f"{epoch}-{number}"))
                try:
                    await store.apply([Create(object=task)], epoch=epoch if fenced else None)
                except Unavailable:
                    continue
        finally:
            print("lost", epoch, flush=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(store.run())
        group.create_task(Election(store, clock, NodeID(name), lead).run())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], fenced=sys.argv[4] == "fenced"))
