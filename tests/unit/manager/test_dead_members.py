"""A manager whose host is gone is let go of before it is taken out of the store."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.base.clock import FakeClock
from swarm.base.ids import NodeID
from swarm.manager.dead_members import DeadMembers, leaving_managers
from swarm.model.objects import ManagerStatus, Node
from swarm.model.plan import Create, Update
from swarm.model.specs import NodeSpec
from swarm.model.types import NodeRole
from swarm.store.peer_connections import end_connections
from tests.fakes.memory_cluster import memory_store

DEAD, ALIVE = NodeID("dead"), NodeID("alive")
KERNEL = Path("/proc/config.gz")


def can_end_connections() -> bool:
    return KERNEL.exists() and b"CONFIG_INET_DIAG_DESTROY=y" in gzip.decompress(KERNEL.read_bytes())


async def test_only_what_is_dead_and_leaves_is_let_go_of_and_once():
    ended: asyncio.Queue[str] = asyncio.Queue()
    async with memory_store(FakeClock()) as store:

        async def demote(node_id: NodeID) -> None:
            node = store.view.get(Node, node_id)
            await store.commit([Update(object=replace(node, spec=NodeSpec(role=NodeRole.WORKER)))])

        for number, node_id in enumerate((DEAD, ALIVE), start=1):
            status = ManagerStatus(addr=f"192.0.2.{number}:2377", member_id=f"{number}")
            node = Node(id=node_id, spec=NodeSpec(role=NodeRole.MANAGER), manager_status=status)
            await store.commit([Create(object=node)])
        assert leaving_managers(store.view) == {}
        running = asyncio.ensure_future(DeadMembers(store, lambda node_id: node_id == ALIVE, ended.put).run())
        try:
            async with asyncio.timeout(5):
                await demote(ALIVE)
                await demote(DEAD)
                assert await ended.get() == "192.0.2.1"
                await store.commit([Update(object=store.view.get(Node, ALIVE))])  # another change of a node
                await store.sync()
            assert ended.empty()
            assert leaving_managers(store.view) == {DEAD: "192.0.2.1", ALIVE: "192.0.2.2"}
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.mark.root
@pytest.mark.skipif(not can_end_connections(), reason="the kernel ends no connections for others")
async def test_both_ends_connections_are_ended_and_no_others():
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [server.getsockname()[1] for server in (ours, other)]
        clients = [socket.create_connection(("127.0.0.1", port)) for port in ports]
        served = [server.accept()[0] for server in (ours, other)]
        await end_connections("127.0.0.1", ports[0])
        for end in (clients[0], served[0]):
            with pytest.raises(OSError, match=r"abort|reset|pipe"):
                end.sendall(b"x")
        clients[1].sendall(b"x")
        assert served[1].recv(1) == b"x"
        for end in (*clients, *served):
            end.close()
