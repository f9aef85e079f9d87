"""Commands in tasks by way of managers' real servers: through one, through two, left, lost, refused."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from swarm.base.errors import FailedPrecondition, Fatal, NotFound, Unavailable
from swarm.base.ids import new_id
from swarm.manager.manager import Listen
from swarm.model.execs import ExecConfig, ExecInput, TerminalSize
from swarm.model.objects import ManagerStatus, Node, NodeStatus, Task, TaskStatus
from swarm.model.plan import Create, Update
from swarm.model.specs import NodeSpec
from swarm.model.task_state import TaskState
from swarm.model.types import NodeRole, NodeState
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.rpc import open_channel
from swarm.worker.execs import Execs
from swarm.worker.runtime import exec_spec
from tests.fakes.fake_exec import FakeExecContainers
from tests.fakes.manager_site import Undecided, site

PATIENCE_S = 10


class Agent:
    """The exec part of a node's agent, and its only task."""

    def __init__(self, identity) -> None:
        self.identity = identity
        self.containers = FakeExecContainers()
        self.task = Task(
            id=new_id(), node_id=identity.subject.node_id, status=TaskStatus(state=TaskState.RUNNING)
        )
        self.execs = Execs(self.containers, self)

    def get(self, task_id):
        return self.task if task_id == self.task.id else None

    async def serve(self, target) -> None:
        async with open_channel(target, self.identity) as channel, asyncio.TaskGroup() as group:
            group.create_task(self.execs.keep())
            group.create_task(self.execs.serve(dispatcher_pb2_grpc.ExecBrokerStub(channel)))


@pytest.fixture
async def here():
    async with site() as made:
        yield made


@asynccontextmanager
async def second_manager(here):
    """Another manager over the same store, at 127.0.0.2."""
    identity = here.certify(NodeRole.MANAGER)
    status = ManagerStatus(addr="127.0.0.2:2377")
    node = Node(id=identity.subject.node_id, spec=NodeSpec(role=NodeRole.MANAGER), manager_status=status)
    await here.store.commit([Create(object=node)])
    listen = here.parts.listen
    there = Listen(address="127.0.0.2", join_port=listen.join_port, cluster_port=listen.cluster_port)
    manager = Undecided(replace(here.parts, identity=lambda: identity, listen=there))
    running = asyncio.ensure_future(manager.run())
    await manager.serving()
    yield manager
    running.cancel()
    await asyncio.wait({running})


async def is_ready(here, agent) -> None:
    """The store says so of the agent's node, with its session at `here`, and has its task."""
    node = here.store.view.get(Node, agent.task.node_id)
    status = NodeStatus(state=NodeState.READY, manager_id=here.identity.subject.node_id)
    await here.store.commit([Update(object=replace(node, status=status)), Create(object=agent.task)])


async def listened(here) -> None:
    """Until the manager knows that a node listens, which nobody is told."""
    async with asyncio.timeout(PATIENCE_S):
        while not here.manager.execs._listeners:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


@pytest.fixture(params=["one manager", "two managers"])
async def relayed(request, here):
    """An agent at a manager, and the manager whose client asks: the same one, or another."""
    agent = Agent(await here.member())
    async with second_manager(here) as other:
        await is_ready(here, agent)
        serving = asyncio.ensure_future(agent.serve(here.target))
        await listened(here)
        manager = here.manager if request.param == "one manager" else other
        yield agent, manager.execs, serving
        serving.cancel()
        await asyncio.wait({serving})
        assert all(process.closed.is_set() for process in agent.containers.processes)
        async with asyncio.timeout(PATIENCE_S):
            while here.manager.execs._sessions:  # noqa: ASYNC110 - the last call may still be ending
                await asyncio.sleep(0.01)


class Client:
    """What a user types, until he leaves."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[ExecInput | None] = asyncio.Queue()

    def type(self, *items: ExecInput) -> None:
        for item in items:
            self._items.put_nowait(item)

    def leave(self) -> None:
        self._items.put_nowait(None)

    async def inputs(self):
        while (item := await self._items.get()) is not None:
            yield item


async def run(broker, agent, *args, client=None, **config):
    """(output, errors, exit code)."""
    out, err, code = b"", b"", None
    wanted = ExecConfig(args=args, **config)
    async with asyncio.timeout(PATIENCE_S):
        async with broker.run(agent.task.id, wanted, (client or Client()).inputs()) as outputs:
            async for output in outputs:
                out, err, code = out + output.stdout, err + output.stderr, output.exit_code
    return out, err, code


async def test_input_goes_in_and_output_and_the_exit_code_come_out(relayed) -> None:
    agent, broker, _ = relayed
    client = Client()
    size = ExecInput(size=TerminalSize(height=24, width=80))
    client.type(ExecInput(stdin=b"one\n"), size, ExecInput(stdin=b"two\n"), ExecInput(is_stdin_end=True))
    assert await run(broker, agent, "cat", client=client, stdin=True, tty=True, user="7") == (
        b"one\n80x24\ntwo\n",
        b"",
        0,
    )
    assert agent.containers.processes[0].config == exec_spec.ExecConfig(
        args=("cat",), stdin=True, tty=True, user="7"
    )
    assert await run(broker, agent, "warn") == (b"", b"careful\n", 3)


async def test_many_at_once(relayed) -> None:
    agent, broker, _ = relayed
    found = await asyncio.gather(*(run(broker, agent, "exit", str(n)) for n in range(20)))
    assert [code for _, _, code in found] == list(range(20))


async def test_a_client_that_leaves_takes_the_command_with_it(relayed) -> None:
    agent, broker, _ = relayed
    client = Client()
    running = asyncio.ensure_future(run(broker, agent, "sleep", client=client))
    await agent.containers.started.wait()
    client.leave()
    async with asyncio.timeout(PATIENCE_S):
        await agent.containers.processes[0].closed.wait()
        await asyncio.wait({running})
    running.cancel()


async def test_an_api_call_that_is_cancelled_takes_the_command_with_it(relayed) -> None:
    agent, broker, _ = relayed
    running = asyncio.ensure_future(run(broker, agent, "sleep"))
    await agent.containers.started.wait()
    running.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await agent.containers.processes[0].closed.wait()


async def test_a_slow_reader_slows_the_command_down(relayed) -> None:
    agent, broker, _ = relayed
    client = Client()
    async with broker.run(agent.task.id, ExecConfig(args=("yes",)), client.inputs()) as outputs:
        await anext(outputs)
        taken = [-1]
        async with asyncio.timeout(PATIENCE_S):
            while taken[-4:].count(taken[-1]) < 4:  # until nothing moves any more
                await asyncio.sleep(0.2)
                taken.append(agent.containers.processes[0].written)
        assert taken[-1] < 2000  # of pieces of 32 KiB: what gRPC has on its way, and no more


async def test_a_lost_session_ends_the_command_and_says_so(relayed) -> None:
    agent, broker, serving = relayed
    running = asyncio.ensure_future(run(broker, agent, "sleep"))
    await agent.containers.started.wait()
    serving.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await agent.containers.processes[0].closed.wait()
        with pytest.raises(Unavailable, match="lost"):
            await running


async def test_a_node_that_is_lost_before_it_takes_a_command_up_is_named_at_once(here, monkeypatch) -> None:
    monkeypatch.setattr("swarm.manager.execs.ANSWER_TIMEOUT_S", 10 * PATIENCE_S)
    agent = Agent(await here.member())
    await is_ready(here, agent)
    async with open_channel(here.target, agent.identity) as channel:
        orders = dispatcher_pb2_grpc.ExecBrokerStub(channel).ListenExecs(pb.ListenExecsRequest())
        await listened(here)
        running = asyncio.ensure_future(run(here.manager.execs, agent, "sleep"))
        await orders.read()
        orders.cancel()
        with pytest.raises(Unavailable, match="lost"):
            await running


async def test_what_cannot_be_run_is_said_in_the_node_s_words(relayed) -> None:
    agent, broker, _ = relayed
    with pytest.raises(Fatal, match="executable file not found") as error:
        await run(broker, agent, "nope")
    assert error.value.exit_code == 127
    agent.task = replace(agent.task, status=TaskStatus(state=TaskState.COMPLETE))
    with pytest.raises(FailedPrecondition, match="is not running"):
        await run(broker, agent, "exit", "0")


async def test_a_detached_command_is_left_alone(relayed) -> None:
    agent, broker, _ = relayed
    client = Client()
    running = asyncio.ensure_future(run(broker, agent, "sleep", detach=True, client=client))
    await agent.containers.started.wait()
    client.leave()
    running.cancel()
    await asyncio.wait({running})
    process = agent.containers.processes[0]
    assert await run(broker, agent, "exit", "4", detach=True) == (b"", b"", 4)
    assert not process.killed.is_set()


async def test_tasks_and_nodes_that_are_not_there(here) -> None:
    broker = here.manager.execs
    agent = Agent(here.certify())
    with pytest.raises(NotFound, match=f"task {agent.task.id} not found"):
        await run(broker, agent, "exit", "0")
    identity = await here.member()
    agent.task = replace(agent.task, node_id=identity.subject.node_id)
    await here.store.commit([Create(object=agent.task)])
    with pytest.raises(Unavailable, match="is unknown"):
        await run(broker, agent, "exit", "0")
