"""An agent with a manager's real servers: assignments in, reports out, sessions lost and found again."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from swarm.base.ids import new_id
from swarm.model.host_offer import HostOffer
from swarm.model.objects import Node, Task, TaskStatus
from swarm.model.plan import Create, Delete
from swarm.model.task_state import TaskState
from swarm.model.types import NodeDescription, NodeState, TunnelKey
from swarm.secrets.box import Box
from swarm.worker import agent as agent_module
from swarm.worker.agent import Agent, AgentParts
from swarm.worker.execs import Execs
from swarm.worker.fence import Fence
from swarm.worker.journal import Journal
from swarm.worker.log_publisher import LogPublisher
from swarm.worker.payloads import Payloads
from swarm.worker.reporter import Reporter
from swarm.worker.secret_driver import SecretDrivers
from swarm.worker.tasks import Tasks
from swarm.worker.usage import UsageReporter
from tests.fakes.fake_controller import FakeController
from tests.fakes.manager_site import CLOCK, Undecided, site

S = TaskState


class FakeNetwork:
    """A data path that records what it was to be, and fails when told to."""

    def __init__(self) -> None:
        self.applied: list[object] = []
        self.error: Exception | None = None
        self.tunnel_keys: tuple[TunnelKey, ...] = ()
        self.encryption_problem = ""

    async def apply(self, desired):
        self.applied.append(desired)
        if self.error:
            raise self.error

    async def verify(self):
        return 0


class NothingLeft:
    """No containers and no images of an earlier swarmd."""

    def __init__(self) -> None:
        self.may_adopt = asyncio.Event()
        self.may_adopt.set()

    async def adopt(self, known):
        await self.may_adopt.wait()
        return []

    def retained(self):
        return ()


class Worker:
    def __init__(self, here, identity, directory) -> None:
        self.identity = identity
        self.directory = directory
        self.node_id = identity.subject.node_id
        self.controller = FakeController()
        self.network = FakeNetwork()
        self.left = NothingLeft()
        self.journal = Journal(directory, Box(bytes(32)))
        self.remembered: list[tuple[str, ...]] = []
        self.trouble = ("", "")
        reporter = Reporter()
        self.tasks = Tasks(journal=self.journal, controller=self.controller, clock=CLOCK, report=reporter.put)
        parts = AgentParts(
            tasks=self.tasks,
            network=self.network,
            journal=self.journal,
            payloads=Payloads(SecretDrivers(directory)),
            reporter=reporter,
            logs=LogPublisher(self.left, self.tasks),
            execs=Execs(self.left, self.tasks),
            usage=UsageReporter(self.left, self.tasks.list, CLOCK),
            fence=Fence(directory, CLOCK),
            offer=HostOffer(),
            clock=CLOCK,
            store_trouble=lambda: self.trouble,
            home=lambda: "",
            remember=self.remembered.append,
            told=lambda node: None,
            certify=lambda terms: None,
        )
        self.agent = Agent(parts, lambda: identity, (here.target,), "192.0.2.9")

    async def run(self):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tasks.run(self.left, self.left))
            group.create_task(self.agent.run())


@pytest.fixture
async def here(monkeypatch):
    monkeypatch.setattr(agent_module, "describe_host", describe)
    async with site() as made:
        # The manager tells where it serves with the standard port; here it serves elsewhere.
        monkeypatch.setattr("swarm.manager.dispatcher.messages.CLUSTER_PORT", int(made.target.split(":")[1]))
        yield made


def describe(*_args, **_kwargs):
    return NodeDescription(hostname="w1", data_path_address="192.0.2.9")


@asynccontextmanager
async def running(worker):
    work = asyncio.ensure_future(worker.run())
    try:
        yield work
    finally:
        work.cancel()
        await asyncio.wait({work})


@pytest.fixture
async def worker(here, tmp_path):
    return Worker(here, await here.member(), tmp_path)


async def until(store, condition):
    """Wait until the store satisfies `condition`."""
    with store.changes() as changes:
        async with asyncio.timeout(10):
            while not condition(store.view):
                await changes.wait()


def node_is(worker, state):
    return lambda view: view.get(Node, worker.node_id).status.state is state


async def assigned(here, worker):
    task = Task(
        id=new_id(), node_id=worker.node_id, service_name="web", slot=1, status=TaskStatus(state=S.ASSIGNED)
    )
    await here.store.commit([Create(object=task)])
    return task


def task_is(task, state):
    return lambda view: (view.get(Task, task.id) or task).status.state is state


async def test_a_task_is_assigned_run_and_reported(here, worker):
    async with running(worker):
        await until(here.store, node_is(worker, NodeState.READY))
        task = await assigned(here, worker)
        await until(here.store, task_is(task, S.RUNNING))
    node = here.store.view.get(Node, worker.node_id)
    assert node.description.hostname == "w1"
    assert node.status.addr == "127.0.0.1"
    assert worker.agent.problem == ""


async def test_nothing_is_taken_before_adoption(here, worker):
    worker.left.may_adopt.clear()
    task = await assigned(here, worker)
    async with running(worker) as work:
        connected = asyncio.ensure_future(worker.agent.connected())
        done, _ = await asyncio.wait({connected, work}, timeout=0.3)
        assert not done
        worker.left.may_adopt.set()
        await until(here.store, task_is(task, S.RUNNING))
        await connected


async def test_a_network_that_cannot_be_made_stops_no_task(here, worker):
    worker.network.error = KeyError("surprise")
    async with running(worker) as work:
        task = await assigned(here, worker)
        await until(here.store, task_is(task, S.RUNNING))
        assert not work.done()
    assert worker.network.applied


async def test_a_deposed_leader_s_assignments_are_left(here, worker):
    worker.agent._check_generation(here.cluster.generation)
    worker.agent._assignments.epoch = 10**6
    async with running(worker):
        task = await assigned(here, worker)
        for _ in range(250):  # the agent tells its log only
            if worker.agent.problem == "the manager follows a deposed leader":
                break
            await asyncio.sleep(0.02)
        assert worker.agent.problem == "the manager follows a deposed leader"
    assert worker.tasks.get(task.id) is None
    assert worker.network.applied == []


async def test_a_lower_epoch_of_a_later_generation_is_followed(here, worker):
    worker.journal.save_epoch(10**6)
    worker.journal.save_generation(here.cluster.generation - 1)
    anew = Worker(here, worker.identity, worker.directory)
    async with running(anew):
        task = await assigned(here, anew)
        await until(here.store, task_is(task, S.RUNNING))
    assert anew.journal.load_generation() == here.cluster.generation
    assert 0 < anew.journal.load_epoch() < 10**6


async def test_a_manager_of_an_earlier_generation_is_not_heard(here, worker):
    worker.journal.save_generation(here.cluster.generation + 1)
    anew = Worker(here, worker.identity, worker.directory)
    async with running(anew):
        task = await assigned(here, anew)
        for _ in range(250):  # the agent tells its log only
            if "recovered without it" in anew.agent.problem:
                break
            await asyncio.sleep(0.02)
        assert "recovered without it" in anew.agent.problem
    assert anew.tasks.get(task.id) is None


async def test_a_manager_that_comes_back_finds_what_happened_meanwhile(here, worker):
    """Its server is gone, not its store: tasks go on, and the end of one is reported to the next manager."""
    async with running(worker):
        task = await assigned(here, worker)
        await until(here.store, task_is(task, S.RUNNING))
        await here.stop()
        worker.controller.held["wait"].set()
        async with asyncio.timeout(5):
            await worker.controller.began["release"].wait()
        assert here.store.view.get(Task, task.id).status.state is S.RUNNING
        again = Undecided(here.parts)
        work = asyncio.ensure_future(again.run())
        try:
            await until(here.store, task_is(task, S.COMPLETE))
        finally:
            work.cancel()
            await asyncio.wait({work})


async def test_a_silent_node_goes_down_and_comes_back(here, worker):
    async with running(worker):
        await until(here.store, node_is(worker, NodeState.READY))
    await until(here.store, node_is(worker, NodeState.DOWN))
    assert here.store.view.get(Node, worker.node_id).status.message == "heartbeat failure"
    async with running(worker):
        await until(here.store, node_is(worker, NodeState.READY))


async def test_a_node_that_has_been_removed_stops_what_others_now_run(here, worker):
    async with running(worker):
        task = await assigned(here, worker)
        await until(here.store, task_is(task, S.RUNNING))
        await here.store.commit([Delete(object=here.store.view.get(Node, worker.node_id))])
        async with asyncio.timeout(10):
            await worker.controller.began["remove"].wait()
    assert worker.controller.calls[-3:] == ["stop", "release", "remove"]
    assert "has been removed from the cluster" in worker.agent.problem


async def test_trouble_with_a_manager_s_store_is_told_and_taken_back(here, worker):
    def told(state):
        return lambda view: view.get(Node, worker.node_id).description.store_state == state

    async with running(worker):
        await until(here.store, node_is(worker, NodeState.READY))
        worker.trouble = ("CORRUPT", "its files are damaged")
        await until(here.store, told("CORRUPT"))
        assert here.store.view.get(Node, worker.node_id).description.store_problem == "its files are damaged"
        worker.trouble = ("", "")
        await until(here.store, told(""))
        assert here.store.view.get(Node, worker.node_id).status.state is NodeState.READY
