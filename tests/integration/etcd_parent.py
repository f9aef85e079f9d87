"""A program that keeps an etcd child, for tests that kill one or the other: `etcd_parent.py DIRECTORY`.

Out: a line with the child's pid whenever it serves, and once what clients without etcd's own certificate get.
Run it in a network namespace of its own: the ports are fixed.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import Unavailable
from swarm.base.ids import ClusterID, NodeID
from swarm.manager.ca.etcd_ca import certify_member, create_etcd_ca, etcd_files
from swarm.manager.ca.root import Grant, create_root, read_csr, sign
from swarm.model.defaults import ETCD_CLIENT_PORT
from swarm.model.objects import JoinTokens
from swarm.model.types import NodeRole
from swarm.proto.identity import make_csr, new_key
from swarm.store.etcd import EtcdAddress, EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings
from swarm.store.kv import Put

NOW = SystemClock().now()


async def main(directory: Path) -> None:
    pki = directory / "pki"
    is_known = pki.exists()
    files = etcd_files(pki) if is_known else certify_member(pki, create_etcd_ca(NOW), "127.0.0.1")
    settings = EtcdSettings(name="n1", directory=directory / "etcd", peer_address="127.0.0.1", files=files)
    etcd = EtcdProcess(settings)
    running = asyncio.ensure_future(etcd.run())
    await etcd.serving()
    kv = EtcdKV(files.address())
    starts = await kv.get("/starts")
    count = int(starts.value) + 1 if starts else 1
    await kv.txn((), [Put("/starts", str(count).encode())])
    print("manager certificate", await asks(node_address(files.address(), NodeRole.MANAGER)), flush=True)
    print("worker certificate", await asks(node_address(files.address(), NodeRole.WORKER)), flush=True)
    print("starts", count, flush=True)
    told = None
    while not running.done():
        if etcd.pid != told and etcd.pid is not None:
            try:
                await kv.get("/starts")
            except Unavailable:
                pass
            else:
                told = etcd.pid
                print("pid", told, flush=True)
        await asyncio.sleep(0.05)


def node_address(etcd: EtcdAddress, role: NodeRole) -> EtcdAddress:
    """A client with a node's certificate, which a thief of one would have, and etcd's public root."""
    root = create_root(NOW, JoinTokens())
    key = new_key()
    grant = Grant(node_id=NodeID("n1"), role=role, cluster_id=ClusterID("c1"), life=timedelta(days=1))
    cert = sign(root, read_csr(make_csr(key)), grant, NOW)
    return EtcdAddress(target=f"127.0.0.1:{ETCD_CLIENT_PORT}", ca_pem=etcd.ca_pem, cert_pem=cert, key_pem=key)


async def asks(address: EtcdAddress) -> str:
    kv = EtcdKV(address)
    try:
        await kv.get("/starts")
    except Unavailable:
        return "refused"
    finally:
        await kv.aclose()
    return "served"


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
