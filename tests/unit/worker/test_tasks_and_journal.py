"""All tasks of a node: what is adopted after a restart, assigned, withdrawn, and written down."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.base.clock import FakeClock
from swarm.base.ids import new_id
from swarm.model.container import PullOptions
from swarm.model.objects import Task, TaskStatus
from swarm.model.specs import ContainerSpec, TaskSpec
from swarm.model.task_state import TaskState
from swarm.proto import codec
from swarm.secrets.box import Box
from swarm.worker.journal import Journal
from swarm.worker.runtime.containers import Adopted, ContainerState
from swarm.worker.runtime.status import ExitStatus
from swarm.worker.tasks import Tasks
from tests.fakes.fake_controller import FakeController

S = TaskState
BOX = Box(bytes(32))


def a_task(state=S.ASSIGNED, desired=S.RUNNING):
    return Task(
        id=new_id(), service_name="web", slot=1, status=TaskStatus(state=state), desired_state=desired
    )


class Left:
    """What an earlier swarmd has left: containers, and images kept for them."""

    def __init__(self, *containers: Adopted) -> None:
        self._containers = containers
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()
        self.kept = {c.id for c in containers} | {"of-a-task-long-gone"}

    async def adopt(self, known):
        self.asked.set()
        await self.answer.wait()
        return [c for c in self._containers if c.id in known]

    def retained(self):
        return frozenset(self.kept)

    def release(self, container_id):
        self.kept.discard(container_id)


class Node:
    def __init__(self, directory) -> None:
        self.journal = Journal(directory, BOX)
        self.controller = FakeController()
        self.reported: list[Task] = []
        self._news = asyncio.Event()
        self.tasks = Tasks(
            journal=self.journal, controller=self.controller, clock=FakeClock(), report=self._report
        )

    def _report(self, task):
        self.reported.append(task)
        self._news.set()

    def start(self, left=None):
        left = left or Left()
        self.work = asyncio.ensure_future(self.tasks.run(left, left))
        return left

    async def until(self, task_id, state):
        async with asyncio.timeout(5):
            while (found := self.tasks.get(task_id)) is None or found.status.state is not state:
                self._news.clear()
                await self._news.wait()
        return found

    async def kill(self):
        self.work.cancel()
        await asyncio.wait({self.work})


@pytest.fixture
async def node(tmp_path):
    node = Node(tmp_path)
    yield node
    await node.kill()


async def test_a_task_is_written_down_before_it_is_reported(node, tmp_path):
    node.start()
    await node.tasks.adopted()
    task = a_task()
    node.tasks.assign(task)
    await node.until(task.id, S.RUNNING)
    assert Journal(tmp_path, BOX).load()[task.id].status == node.reported[-1].status


async def test_nothing_is_ready_for_assignments_before_adoption(node):
    left = Left()
    left.answer.clear()
    node.start(left)
    await left.asked.wait()
    adopted = asyncio.ensure_future(node.tasks.adopted())
    await asyncio.sleep(0)
    assert not adopted.done()
    left.answer.set()
    async with asyncio.timeout(5):
        await adopted


async def test_adoption_after_a_restart(node):
    alive, exited, gone, unmade = a_task(S.RUNNING), a_task(S.RUNNING), a_task(S.RUNNING), a_task(S.PREPARING)
    for task in (alive, exited, gone, unmade):
        node.journal.save(task)
    left = node.start(
        Left(
            Adopted(id=alive.id, state=ContainerState.RUNNING, pid=5),
            Adopted(id=exited.id, state=ContainerState.EXITED, exit_status=ExitStatus(code=0)),
        )
    )
    await node.until(unmade.id, S.RUNNING)
    assert (await node.until(gone.id, S.FAILED)).status.err == "the host went down while the task was on it"
    assert node.tasks.get(alive.id).status.state is S.RUNNING
    assert node.controller.calls.count("start") == 1
    assert left.kept == {alive.id, exited.id}


async def test_a_withdrawn_task_leaves_nothing(node, tmp_path):
    node.start()
    await node.tasks.adopted()
    one, two = a_task(), a_task()
    for task in (one, two):
        node.tasks.assign(task)
        await node.until(task.id, S.RUNNING)
    node.tasks.keep_only(frozenset({two.id}))
    async with asyncio.timeout(5):
        await node.controller.began["remove"].wait()
    for _ in range(3):  # the runner ends once the controller has removed
        await asyncio.sleep(0)
    assert node.tasks.get(one.id) is None
    assert set(Journal(tmp_path, BOX).load()) == {two.id}


async def test_leaving_removes_all_and_takes_nothing_new(node, tmp_path):
    node.start()
    await node.tasks.adopted()
    task, replacement = a_task(), a_task()
    node.tasks.assign(task)
    await node.until(task.id, S.RUNNING)
    node.controller.held["stop"] = asyncio.Event()
    leaving = asyncio.ensure_future(node.tasks.remove_all())
    await node.controller.began["stop"].wait()
    node.tasks.assign(replacement)
    node.controller.held["stop"].set()
    async with asyncio.timeout(5):
        await leaving
    assert node.tasks.list() == ()
    assert Journal(tmp_path, BOX).load() == {}


async def test_a_task_known_only_to_the_manager_is_lost_with_the_host(node):
    """The disk was wiped: what ran here before is reported as failed, not started a second time."""
    node.start()
    await node.tasks.adopted()
    task = a_task(S.RUNNING)
    node.tasks.assign(task)
    await node.until(task.id, S.FAILED)
    assert "start" not in node.controller.calls


async def test_waiting_for_a_container_to_be_made(node):
    node.start()
    await node.tasks.adopted()
    node.controller.held["prepare"] = asyncio.Event()
    task = a_task()
    node.tasks.assign(task)
    made = asyncio.ensure_future(node.tasks.made(task.id))
    await node.controller.began["prepare"].wait()
    assert not made.done()
    node.controller.held["prepare"].set()
    async with asyncio.timeout(5):
        await made
        await node.tasks.made("unknown")


async def test_a_full_disk_does_not_stop_tasks(node, monkeypatch):
    node.start()
    await node.tasks.adopted()
    node.journal.save_epoch(7)
    (node.journal._tasks).rmdir()  # every write fails from here on
    task = a_task()
    node.tasks.assign(task)
    await node.until(task.id, S.RUNNING)


def test_a_journal_keeps_tasks_and_the_epoch(tmp_path):
    journal = Journal(tmp_path, BOX)
    task = a_task()
    journal.save(task)
    journal.save(replace(task, slot=2))
    journal.save_epoch(9)
    again = Journal(tmp_path, BOX)
    assert again.load() == {task.id: replace(task, slot=2)}
    assert again.load_epoch() == 9
    again.forget(task.id)
    again.forget(task.id)
    assert again.load() == {}


def test_unreadable_files_count_as_none(tmp_path):
    journal = Journal(tmp_path, BOX)
    assert journal.load_epoch() == 0
    good, other = a_task(), a_task()
    journal.save(good)
    (tmp_path / "tasks" / "empty").write_bytes(b"")  # what a power cut leaves of a file not yet on disk
    (tmp_path / "tasks" / "misplaced").write_bytes(BOX.seal(other.id, codec.dumps(other)))
    (tmp_path / "tasks" / "plain").write_bytes(codec.dumps(replace(other, id="plain")))
    (tmp_path / "tasks" / "broken").write_bytes(b"\xff\xff\xff")
    (tmp_path / "tasks" / ".half-written").write_bytes(b"x")
    (tmp_path / "epoch").write_text("nonsense")
    assert journal.load() == {good.id: good}
    assert [p.name for p in (tmp_path / "tasks").iterdir()] == [good.id]
    assert journal.load_epoch() == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), value=st.integers(0, 255))
def test_a_damaged_file_never_stops_a_node_from_starting(tmp_path, cut, flip, value):
    task = a_task(S.RUNNING)
    content = bytearray(BOX.seal(task.id, codec.dumps(task)))
    content[flip % len(content)] = value
    path = tmp_path / "tasks" / task.id
    journal = Journal(tmp_path, BOX)
    path.write_bytes(content[: cut or None])
    for found in journal.load().values():
        assert found.id == task.id
    path.unlink(missing_ok=True)


def test_a_registry_login_is_never_written_down_but_that_there_is_one(tmp_path):
    journal = Journal(tmp_path, BOX)
    spec = TaskSpec(
        container_spec=ContainerSpec(image="x", pull_options=PullOptions(registry_auth="c2VjcmV0"))
    )
    task = replace(a_task(), spec=spec)
    journal.save(task)
    assert b"c2VjcmV0" not in (tmp_path / "tasks" / task.id).read_bytes()
    assert journal.load()[task.id].spec.container_spec.pull_options == PullOptions()


async def test_a_login_comes_again_with_the_assignment(node):
    task = a_task()
    node.controller.held["prepare"] = asyncio.Event()
    node.start()
    async with asyncio.timeout(5):
        await node.tasks.adopted()
    node.tasks.assign(task)
    options = PullOptions(registry_auth="new")
    container = replace(task.spec.container_spec, pull_options=options)
    node.tasks.assign(replace(task, spec=replace(task.spec, container_spec=container)))
    assert node.tasks.get(task.id).spec.container_spec.pull_options == options
    node.controller.held["prepare"].set()
    await node.until(task.id, S.RUNNING)
