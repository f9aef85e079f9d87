"""The fence and its watchdog; a directory stands for the cgroups, and a process for a container."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from swarm.base.clock import SystemClock
from swarm.base.errors import Fatal
from swarm.base.ids import TaskID
from swarm.model.exclusive import FENCE_AFTER_S
from swarm.model.objects import Task, TaskStatus
from swarm.model.task_state import TaskState
from swarm.worker import watchdog
from swarm.worker.fence import Fence

EXCLUSIVE = {"swarm.exclusive": "true"}
SOON_S = 0.3
LONG_S = 3.0
"""Even a busy machine starts a program within it."""


class Ahead:
    """This machine's clock, some seconds further on."""

    def __init__(self) -> None:
        self.by_s = 0.0
        self._clock = SystemClock()

    def now(self):
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic() + self.by_s


@pytest.fixture
def clock():
    return Ahead()


@pytest.fixture
def fence(tmp_path, clock):
    return Fence(tmp_path, clock, tmp_path / "cgroups")


def task(name: str = "t1", state: TaskState = TaskState.ASSIGNED, **fields) -> Task:
    return Task(id=TaskID(name), service_labels=EXCLUSIVE, status=TaskStatus(state=state), **fields)


@contextmanager
def container(directory, name: str):
    """A process that the cgroup `name` holds."""
    process = subprocess.Popen(["sleep", "60"])
    group = directory / "cgroups" / "pids" / "swarm" / name
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"{process.pid}\n")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def ended(process) -> int:
    return await asyncio.to_thread(process.wait, 10)


async def until(condition) -> None:
    def wait() -> None:
        deadline = watchdog.now_s() + 10
        while not condition():
            assert watchdog.now_s() < deadline
            time.sleep(0.02)

    await asyncio.to_thread(wait)


async def test_a_task_is_armed_under_a_word_or_never(fence, clock):
    early = task("early")
    fence.arm(early)
    await fence.renew(clock.monotonic())
    with pytest.raises(Fatal, match="no manager gave its word for 8 s"):
        await fence.check(early)
    late = task("late")
    fence.arm(late)
    await fence.check(late)
    fence.disarm(late.id)
    assert not fence.is_used


async def test_services_that_are_not_exclusive_are_let_alone(fence):
    free = Task(id=TaskID("free"))
    fence.arm(free)
    await fence.check(free)
    assert not fence.is_used
    assert not fence.has_struck(free)


@pytest.mark.parametrize(
    "gone", [task(state=TaskState.FAILED), task(desired_state=TaskState.SHUTDOWN)], ids=["ended", "unwanted"]
)
async def test_what_will_not_run_is_not_armed(fence, clock, gone):
    await fence.renew(clock.monotonic())
    fence.arm(gone)
    assert not fence.is_used


async def test_a_word_that_comes_too_late_brings_nothing_back(fence, clock, tmp_path):
    await fence.renew(clock.monotonic())
    old = task("old")
    fence.arm(old)
    with container(tmp_path, "old") as process:
        clock.by_s = FENCE_AFTER_S + 0.1
        with pytest.raises(Fatal):
            await fence.check(old)
        _, code = await asyncio.gather(fence.renew(clock.monotonic()), ended(process))
        assert code == -9
    assert fence.has_struck(old)
    with pytest.raises(Fatal):
        await fence.check(old)
    new = task("new")
    fence.arm(new)
    await fence.check(new)
    fence.disarm("new")


async def test_an_answer_to_an_old_question_does_not_count_from_now(fence, clock):
    asked_at = clock.monotonic()
    clock.by_s = FENCE_AFTER_S - 1
    await fence.renew(asked_at)
    fence.arm(task())
    clock.by_s = FENCE_AFTER_S + 0.1
    with pytest.raises(Fatal):
        await fence.check(task())
    fence.disarm("t1")


async def test_a_restarted_swarmd_goes_on_under_the_old_word(fence, clock, tmp_path):
    await fence.renew(clock.monotonic())
    fence.arm(task())
    clock.by_s = FENCE_AFTER_S / 2
    again = Fence(tmp_path, clock, tmp_path / "cgroups")
    await again.renew(clock.monotonic())
    clock.by_s = FENCE_AFTER_S + 1
    await again.check(task())
    again.disarm("t1")
    await until(lambda: is_unwatched(tmp_path))


def is_unwatched(directory) -> bool:
    lock = watchdog.take_watch(directory / "fence")
    if lock is None:
        return False
    os.close(lock)
    return True


def start_watchdog(directory) -> None:
    argv = [
        sys.executable,
        "-I",
        "-S",
        watchdog.__file__,
        str(directory / "fence"),
        str(directory / "cgroups"),
    ]
    subprocess.run([*argv, "swarm"], check=True, timeout=10)


async def test_the_watchdog_kills_when_nobody_tells_it_otherwise(tmp_path):
    tasks = tmp_path / "fence" / "tasks"
    tasks.mkdir(parents=True)
    deadline = watchdog.now_s() + SOON_S
    (tmp_path / "fence" / "deadline").write_text(str(deadline))
    (tasks / "t1").touch()
    with container(tmp_path, "t1") as armed, container(tmp_path, "t2") as other:
        start_watchdog(tmp_path)
        assert await ended(armed) == -9
        assert watchdog.now_s() >= deadline
        await until(lambda: not watchdog.armed(tmp_path / "fence"))
        await until(lambda: is_unwatched(tmp_path))
        assert other.poll() is None


async def test_the_watchdog_follows_a_deadline_that_moves(tmp_path):
    directory = tmp_path / "fence"
    (directory / "tasks").mkdir(parents=True)
    first = watchdog.now_s() + LONG_S
    (directory / "deadline").write_text(str(first))
    (directory / "tasks" / "t1").touch()
    with container(tmp_path, "t1") as process:
        start_watchdog(tmp_path)
        later = first + SOON_S
        (directory / ".next").write_text(str(later))
        (directory / ".next").replace(directory / "deadline")
        assert await ended(process) == -9
        assert watchdog.now_s() >= later


async def test_one_watchdog_is_enough(tmp_path):
    directory = tmp_path / "fence"
    (directory / "tasks").mkdir(parents=True)
    (directory / "deadline").write_text(str(watchdog.now_s() + 60))
    (directory / "tasks" / "t1").touch()
    start_watchdog(tmp_path)
    assert not is_unwatched(tmp_path)
    start_watchdog(tmp_path)
    (directory / "tasks" / "t1").unlink()
    await until(lambda: is_unwatched(tmp_path))
