"""What asyncio's task groups leave to their users."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def in_own_task(work: Coroutine[object, object, None]) -> None:
    """Await `work`, which runs task groups whose errors the caller handles and goes on after.

    Python 3.11's groups leave the task they run in unclear: a cancellation that meets an error is lost, and
    after an error alone `cancelling()` tells of one that nobody asked for. In a task of its own neither
    reaches the caller: a cancellation of the caller ends `work` and is raised, whatever `work` ends with.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at here, or asyncio complains of one that nobody asked for
    task.result()


async def first_of(*works: Coroutine[object, object, T]) -> T:
    """The result, or error, of the work that ends first; the others are cancelled and have ended by then."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in tasks if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # as above
    return first.result()
