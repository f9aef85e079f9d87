"""The dispatcher's streams and writes over a store in memory: who is woken, and what is not overwritten."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from swarm.base.clock import FakeClock
from swarm.base.ids import NetworkID, NodeID, SequentialIds
from swarm.manager.dispatcher.hub import AssignmentHub
from swarm.manager.dispatcher.server import Dispatcher
from swarm.model.objects import Network, Node, NodeStatus, Task, TaskStatus
from swarm.model.plan import Create, Delete, Update
from swarm.model.specs import NetworkSpec
from swarm.model.task_state import TaskState
from swarm.model.types import IPAMConfig, NetworkAttachment, NodeDescription, NodeState
from tests.fakes.memory_cluster import lead, memory_store

N1, N2, ME = NodeID("n1"), NodeID("n2"), NodeID("m1")
NET = Network(
    id=NetworkID("net"),
    spec=NetworkSpec(name="ingress", ingress=True),
    ipam=(IPAMConfig(subnet="10.0.0.0/24"),),
)


def a_node(node_id, address):
    return Node(
        id=node_id,
        description=NodeDescription(data_path_address=f"192.0.2.{address}"),
        status=NodeStatus(state=NodeState.READY, manager_id=ME),
        attachments=(NetworkAttachment(network_id=NET.id, addresses=(f"10.0.0.{address}/24",)),),
    )


def a_task(name, node_id):
    return Task(id=name, node_id=node_id, status=TaskStatus(state=TaskState.ASSIGNED))


@pytest.fixture
async def store():
    async with memory_store(FakeClock()) as store:
        await lead(store)
        await store.commit([Create(object=o) for o in (NET, a_node(N1, 1), a_node(N2, 2))])
        yield store


@pytest.fixture
async def hub(store):
    hub = AssignmentHub(store)
    work = asyncio.ensure_future(hub.run())
    await asyncio.sleep(0)
    yield hub
    work.cancel()
    await asyncio.wait({work})


async def following(differences):
    async with asyncio.timeout(5):
        return await anext(differences)


async def test_a_stream_tells_everything_first_then_changes(store, hub):
    async with aclosing(hub.differences(N1)) as stream:
        first = dict((await following(stream)).updates)
        assert {"network/net", "endpoint/net/10.0.0.1", "endpoint/net/10.0.0.2"} == set(first)
        await store.commit([Create(object=a_task("a", N1))])
        assert [key for key, _ in (await following(stream)).updates] == ["task/a"]
        await store.commit([Delete(object=store.view.get(Task, "a"))])
        assert (await following(stream)).removals == ("task/a",)
    assert hub._streams == {}


async def test_a_stream_is_not_woken_by_another_node_s_tasks(store, hub):
    async with aclosing(hub.differences(N1)) as one, aclosing(hub.differences(N2)) as two:
        await following(one)
        await following(two)
        waiting = asyncio.ensure_future(anext(one))
        await store.commit([Create(object=a_task("b", N2))])
        await following(two)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_a_network_s_change_reaches_everybody_on_it(store, hub):
    async with aclosing(hub.differences(N1)) as stream:
        await following(stream)
        network = store.view.get(Network, NET.id)
        await store.commit([Update(object=replace(network, vni=4097))])
        assert dict((await following(stream)).updates)["network/net"].vni == 4097


class Knowing:
    known_s_ago = 0.0
    is_trustworthy = True


async def test_a_node_that_came_back_is_not_marked_down(store):
    dispatcher = Dispatcher(store, FakeClock(), SequentialIds(), ME, Knowing())
    dispatcher._sessions.open(N1, "new", 0)
    await dispatcher._mark_down(N1)
    await dispatcher._mark_down(N2)
    await dispatcher._mark_down(NodeID("removed"))
    assert store.view.get(Node, N1).status.state is NodeState.READY
    assert store.view.get(Node, N2).status.state is NodeState.DOWN
