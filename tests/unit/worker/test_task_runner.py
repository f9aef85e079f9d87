"""One task, run against a controller that does as told."""

from __future__ import annotations

import asyncio

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import Fatal, Temporary
from swarm.base.ids import new_id
from swarm.model.container import PullOptions
from swarm.model.objects import Task, TaskStatus
from swarm.model.task_state import TaskState
from swarm.worker.task_runner import TaskRunner
from tests.fakes.fake_controller import FakeController

S = TaskState


class Run:
    """A task being run, and the statuses it has reported."""

    def __init__(self, controller: FakeController, state: S = S.ASSIGNED, desired: S = S.RUNNING) -> None:
        self.reports: list[TaskStatus] = []
        self._reported = asyncio.Event()
        task = Task(
            id=new_id(), service_name="web", slot=1, status=TaskStatus(state=state), desired_state=desired
        )
        self.runner = TaskRunner(task, controller, FakeClock(), self._report)
        self.work = asyncio.ensure_future(self.runner.run())

    def _report(self, task: Task) -> None:
        self.reports.append(task.status)
        self._reported.set()

    @property
    def states(self) -> list[S]:
        return [status.state for status in self.reports]

    async def until(self, state: S) -> TaskStatus:
        async with asyncio.timeout(5):
            while self.runner.task.status.state is not state:
                self._reported.clear()
                await self._reported.wait()
        return self.runner.task.status

    async def removed(self) -> None:
        self.runner.remove()
        async with asyncio.timeout(5):
            await self.work


@pytest.fixture
def controller():
    return FakeController()


@pytest.fixture
async def started(controller):
    runs = []

    def start(*args):
        runs.append(Run(controller, *args))
        return runs[-1]

    yield start
    for run in runs:
        run.work.cancel()
        await asyncio.wait({run.work})


async def test_a_task_runs_to_its_end_and_keeps_its_container_until_removed(controller, started):
    run = started()
    await run.until(S.RUNNING)
    controller.held["wait"].set()
    ended = await run.until(S.COMPLETE)
    assert run.states == [S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING, S.COMPLETE]
    assert ended.container.container_id == run.runner.task.id
    assert ended.container.pid == 7
    async with asyncio.timeout(5):
        await controller.began["release"].wait()
    assert "remove" not in controller.calls
    await run.removed()
    assert controller.calls[-1] == "remove"


async def test_a_task_that_is_only_to_be_ready_waits_there(controller, started):
    run = started(S.ASSIGNED, S.READY)
    await run.until(S.READY)
    assert "start" not in controller.calls
    run.runner.set_desired(S.RUNNING)
    await run.until(S.RUNNING)


async def test_what_is_desired_never_falls(controller, started):
    run = started()
    await run.until(S.RUNNING)
    run.runner.set_desired(S.SHUTDOWN)
    run.runner.set_desired(S.RUNNING)
    await run.until(S.SHUTDOWN)


@pytest.mark.parametrize("step", ["prepare", "start"])
async def test_work_towards_running_is_cancelled_when_the_task_is_to_stop(controller, started, step):
    controller.held[step] = asyncio.Event()
    run = started()
    await controller.began[step].wait()
    run.runner.set_desired(S.SHUTDOWN)
    await run.until(S.SHUTDOWN)
    assert controller.cancelled == [step]
    assert controller.calls[-1] in ("stop", "release")


async def test_a_step_that_fails_while_it_is_cancelled_is_not_tried_again(controller, started):
    controller.held["prepare"] = asyncio.Event()

    def fail():
        raise Temporary("half made")

    controller.on_cancel["prepare"] = fail
    run = started()
    await controller.began["prepare"].wait()
    run.runner.set_desired(S.SHUTDOWN)
    await run.until(S.SHUTDOWN)
    assert controller.calls.count("prepare") == 1


async def test_stopping_is_carried_through(controller, started):
    controller.held["stop"] = asyncio.Event()
    run = started()
    await run.until(S.RUNNING)
    run.runner.set_desired(S.SHUTDOWN)
    await controller.began["stop"].wait()
    run.runner.remove()
    controller.held["stop"].set()
    async with asyncio.timeout(5):
        await run.work
    assert controller.cancelled == ["wait"]
    assert controller.calls[-3:] == ["stop", "release", "remove"]
    assert run.reports[-1].state is S.SHUTDOWN
    assert run.reports[-1].container.exit_code == 143


async def test_what_may_pass_is_tried_again_and_shown_meanwhile(controller, started):
    controller.errors["prepare"] = [Temporary("the network is not there yet")]
    run = started()
    await run.until(S.RUNNING)
    assert controller.calls.count("prepare") == 2
    assert "the network is not there yet" in [r.err for r in run.reports if r.state is S.PREPARING]
    assert run.reports[-1].err == ""


@pytest.mark.parametrize(
    ("step", "error", "state", "err"),
    [
        ("prepare", Fatal("no such image"), S.REJECTED, "no such image"),
        ("start", Fatal("not found", 127), S.FAILED, "not found"),
        ("start", OSError(28, "No space left on device"), S.FAILED, "No space left"),
        ("prepare", KeyError("surprise"), S.REJECTED, "internal error: KeyError('surprise')"),
        ("wait", ValueError("surprise"), S.FAILED, "internal error"),
    ],
)
async def test_what_fails_for_good_ends_this_task_only(controller, started, step, error, state, err):
    controller.errors[step] = [error]
    controller.held["wait"].set()
    run = started()
    status = await run.until(state)
    assert err in status.err
    await run.removed()


@pytest.mark.parametrize("step", ["stop", "release", "remove"])
@pytest.mark.parametrize(
    "error", [Temporary("busy"), OSError(16, "Device or resource busy"), KeyError("bug")]
)
async def test_cleaning_up_is_tried_until_it_works(controller, started, step, error):
    controller.errors[step] = [error]
    run = started()
    await run.until(S.RUNNING)
    await run.removed()
    assert controller.calls.count(step) == 2


async def test_cancelling_the_runner_leaves_the_container_alone(controller, started):
    run = started()
    await run.until(S.RUNNING)
    run.work.cancel()
    await asyncio.wait({run.work})
    assert run.work.cancelled()
    assert "stop" not in controller.calls
    assert "remove" not in controller.calls


@pytest.mark.parametrize(("step", "state"), [("start", S.STARTING), ("wait", S.RUNNING)])
async def test_an_unhealthy_task_is_told_so_before_it_is_stopped(started, controller, step, state):
    controller.unhealthy[step] = "task: unhealthy container: refused"
    controller.held.pop("wait", None)
    controller.held["stop"] = asyncio.Event()
    run = started()
    async with asyncio.timeout(5):
        await controller.began["stop"].wait()
    assert (run.reports[-1].state, run.reports[-1].is_unhealthy) == (state, True)
    controller.held["stop"].set()
    failed = await run.until(S.FAILED)
    assert failed.err == "task: unhealthy container: refused"
    await run.removed()


async def test_a_login_that_comes_again_is_taken(started, controller):
    controller.held["prepare"] = asyncio.Event()
    run = started()
    run.runner.set_login(PullOptions(registry_auth="new"))
    assert run.runner.task.spec.container_spec.pull_options == PullOptions(registry_auth="new")
    controller.held["prepare"].set()
    await run.until(S.RUNNING)
