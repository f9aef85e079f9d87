"""Task groups whose errors are handled: no cancellation is lost, and none is made up."""

from __future__ import annotations

import asyncio

import pytest

from swarm.base.aio import in_own_task


async def fails(when: asyncio.Event) -> None:
    await when.wait()
    raise ValueError


async def group(when: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as made:
        made.create_task(fails(when))
        made.create_task(asyncio.sleep(3600))


async def test_an_error_of_a_group_leaves_the_caller_uncancelled():
    """In the caller's own task Python 3.11 would count a cancellation from here on."""
    when = asyncio.Event()
    when.set()

    async def caller() -> int:
        try:
            await in_own_task(group(when))
        except* ValueError:
            pass
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert await asyncio.create_task(caller()) == 0


async def test_a_cancellation_that_meets_an_error_goes_on():
    when = asyncio.Event()

    async def caller() -> None:
        while True:
            try:
                await in_own_task(group(when))
            except* ValueError:
                pass

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    when.set()
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancelled_caller_leaves_no_work_behind():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    task = asyncio.create_task(in_own_task(work()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
