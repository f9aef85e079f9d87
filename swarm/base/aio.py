"""What asyncio's task groups leave to their users."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


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
    task.result()
