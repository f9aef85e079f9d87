"""A cancellation that meets an error in a task group is not lost."""

from __future__ import annotations

import asyncio

import pytest

from swarm.base.aio import raise_if_cancelled


async def test_a_loop_that_handles_a_groups_error_still_ends_when_cancelled():
    failing = asyncio.Event()

    async def child():
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("it failed while it was cancelled")

    async def loop():
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(child())
                    failing.set()
            except* ValueError:
                pass
            raise_if_cancelled()

    task = asyncio.ensure_future(loop())
    await failing.wait()
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_it_says_nothing_while_nobody_cancels():
    raise_if_cancelled()
