"""A program that founds a store anew: `refounding_program.py DIRECTORY PKI CLIENT_PORT PEER_PORT`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from swarm.base.errors import Unavailable
from swarm.base.ids import new_id
from swarm.manager.ca.etcd_ca import etcd_files
from swarm.store import etcd_process
from swarm.store.etcd_process import EtcdSettings
from swarm.store.refounding import refound

PATIENCE_S = 60.0


async def found_anew(settings: EtcdSettings) -> None:
    """As swarmd does: once more when an etcd did not answer in time."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await refound(settings, new_id())
                break
            except* Unavailable:
                pass


if __name__ == "__main__":
    directory, pki, client, peer = sys.argv[1:]
    etcd_process.ETCD_CLIENT_PORT, etcd_process.ETCD_PEER_PORT = int(client), int(peer)
    settings = EtcdSettings(
        name="n1", directory=Path(directory), peer_address="127.0.0.1", files=etcd_files(Path(pki))
    )
    asyncio.run(found_anew(settings))
