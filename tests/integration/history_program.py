"""Who led and beat when, as a manager's etcd has it on record: `history_program.py [SINCE|beats]`.

Run it on the manager's host. Without SINCE: the present epoch. With it, a line for each write:
`epoch REVISION` or `beat EPOCH REVISION`. With `beats`: `NODE COUNT` for each manager that ever served.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from swarm.manager.ca.etcd_ca import etcd_files
from swarm.node.files import Paths
from swarm.proto.gen.etcd import kv_pb2, rpc_pb2, rpc_pb2_grpc
from swarm.store import keys
from swarm.store.continued import ContinuedKV
from swarm.store.etcd import EtcdKV

END = b"/swarm/leadez"


async def main(since: int) -> None:
    address = etcd_files(Paths().store_member).address()
    async with asyncio.timeout(20), aclosing(EtcdKV(address)) as kv:
        raw = await kv.revision()
        continued = await kv.get(keys.BASE)
        base = int(continued.value) if continued else 0
        if not since:
            leader = await ContinuedKV(kv).get(keys.LEADER)
            print(leader.mod_revision if leader else 0)
            return
        stream = rpc_pb2_grpc.WatchStub(kv.channel).Watch()
        request = rpc_pb2.WatchCreateRequest(
            key=keys.LEADER.encode(), range_end=END, start_revision=since - base
        )
        await stream.write(rpc_pb2.WatchRequest(create_request=request))
        async for response in stream:  # the leader beats on: the end is passed soon
            for event in response.events:
                if event.kv.mod_revision > raw:
                    return
                if event.type == kv_pb2.Event.PUT:
                    tell(event.kv, base)


def tell(item: kv_pb2.KeyValue, base: int) -> None:
    """A takeover's own first beat tells no epoch."""
    epoch, dot, _ = item.value.decode().partition(".")
    if item.key.decode() == keys.LEADER:
        print("epoch", item.mod_revision + base)
    elif dot:
        print("beat", epoch, item.mod_revision + base)


async def tell_beats() -> None:
    """How often each manager has beaten since it was started."""
    async with asyncio.timeout(20), aclosing(EtcdKV(etcd_files(Paths().store_member).address())) as kv:
        for item in (await kv.list(keys.MANAGERS)).items:
            print(item.key.removeprefix(keys.MANAGERS), item.value.decode().split()[0])


if __name__ == "__main__":
    argument = (*sys.argv[1:], "0")[0]
    asyncio.run(tell_beats() if argument == "beats" else main(int(argument)))
