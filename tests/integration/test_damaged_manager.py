"""A manager whose data are known to be damaged: it serves nobody, and says what to do."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from swarm.base.errors import Unavailable
from swarm.manager.store_check import DIFFERENCES, MINORITY, UNDECIDED
from swarm.model.objects import Node
from swarm.model.types import NodeRole, NodeState
from swarm.node.certificates import ask_managers, renew
from swarm.node.joining import Application, request_identity
from swarm.proto.gen import dispatcher_pb2, dispatcher_pb2_grpc, managers_pb2_grpc
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.identity import new_key
from swarm.proto.rpc import open_channel
from tests.fakes.manager_site import CLOCK, site
from tests.integration.test_agent_session import Worker, node_is, running, until

DAMAGED = r"swarm system repair` on this node"
FOUND_WITHIN_S = 2.0


@pytest.fixture
async def here(monkeypatch):
    async with site() as made:
        monkeypatch.setattr("swarm.manager.dispatcher.messages.CLUSTER_PORT", int(made.target.split(":")[1]))
        yield made


def ask(here, identity, name, request):
    async def call(stub):
        return await getattr(stub, name)(request, timeout=5)

    return ask_managers([here.target], identity, managers_pb2_grpc.ManagersStub, call)


async def test_nobody_gets_anything_from_it(here):
    worker, manager = await here.member(), await here.member(NodeRole.MANAGER)
    await renew((here.target,), worker)
    here.store.damage = "the stored value at x does not open"
    before = here.store.view.list(Node)
    with pytest.raises(Unavailable, match=DAMAGED):
        await renew((here.target,), worker)
    applied = Application(token=here.token(), key_pem=new_key(), availability="active", address="")
    with pytest.raises(Unavailable, match=DAMAGED):
        await request_identity(here.join, applied, CLOCK)
    for name, request in (
        ("JoinStore", pb.JoinStoreRequest()),
        ("CatchUp", pb.CatchUpRequest()),
        ("DataKeys", pb.DataKeysRequest()),
        ("LeaveStore", pb.LeaveStoreRequest()),
    ):
        with pytest.raises(Unavailable, match=DAMAGED):
            await ask(here, manager, name, request)
    assert here.store.view.list(Node) == before
    await ask(here, manager, "StoreStatus", pb.StoreStatusRequest())  # to see how it is


async def test_its_sessions_end_and_none_is_opened(here, tmp_path):
    worker = Worker(here, await here.member(), tmp_path)
    async with running(worker):
        await until(here.store, node_is(worker, NodeState.READY))
        here.store.damage = "the stored value at x does not open"
        async with asyncio.timeout(FOUND_WITHIN_S):
            await until(here.store, node_is(worker, NodeState.UNKNOWN))
        async with open_channel(here.target, worker.identity) as channel:
            session = dispatcher_pb2_grpc.DispatcherStub(channel).Session(dispatcher_pb2.SessionRequest())
            with pytest.raises(grpc.aio.AioRpcError, match="data are damaged: another one has to serve"):
                await session.read()
        here.store.damage = ""
        await until(here.store, node_is(worker, NodeState.READY))


async def test_a_minority_is_not_believed_and_an_undecided_one_serves(here):
    check = here.manager.keeper._check
    for _ in range(DIFFERENCES):
        check.take(MINORITY, 0.0)
    assert not here.manager.is_trustworthy
    with pytest.raises(Unavailable, match=r"differ from those of the other managers: .*system repair"):
        here.manager.keeper.refuse_damaged()
    for _ in range(DIFFERENCES):
        check.take(UNDECIDED, 0.0)
    assert here.manager.is_trustworthy
    here.manager.keeper.refuse_damaged()
