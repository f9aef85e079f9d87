"""Answers of etcd when its term changes: late ones are taken, those of a member left behind are not."""

from __future__ import annotations

import asyncio

import pytest

from swarm.proto.gen.etcd import kv_pb2, rpc_pb2
from swarm.store.etcd import EtcdAddress, EtcdKV
from swarm.store.kv import WatchLost


class AnsweredByHand:
    """etcd's key-value service, whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[rpc_pb2.RangeResponse]] = []

    def Range(self, request, timeout):
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]

    def answer(self, number: int, term: int) -> None:
        header = rpc_pb2.ResponseHeader(raft_term=term, revision=7)
        found = kv_pb2.KeyValue(key=b"/a", value=b"%d" % term, mod_revision=7)
        self.asked[number].set_result(rpc_pb2.RangeResponse(header=header, kvs=[found]))


@pytest.fixture
async def etcd():
    """(client, what it asks)"""
    kv, service = (
        EtcdKV(EtcdAddress(target="127.0.0.1:1", ca_pem=b"", cert_pem=b"", key_pem=b"")),
        AnsweredByHand(),
    )
    kv._kv = service
    yield kv, service
    await kv.aclose()


async def begun(kv):
    """A question that is under way."""
    asking = asyncio.ensure_future(kv.get("/a"))
    await asyncio.sleep(0)
    return asking


async def test_an_answer_that_was_overtaken_by_one_of_the_next_term_is_taken(etcd):
    kv, service = etcd
    first, second = await begun(kv), await begun(kv)
    service.answer(1, term=3)
    assert (await second).value == b"3"
    service.answer(0, term=2)
    assert (await first).value == b"2"


async def test_a_member_that_was_left_behind_is_refused(etcd):
    kv, service = etcd
    asking = await begun(kv)
    service.answer(0, term=3)
    await asking
    for number in (1, 2):
        asking = await begun(kv)
        service.answer(number, term=2)
        with pytest.raises(WatchLost, match="from term 2, before 3: a stale member"):
            await asking
