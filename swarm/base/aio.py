"""What asyncio's task groups leave to their users."""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """Go on with a cancellation that a task group may have lost.

    Before Python 3.13 a group whose child fails in the moment in which its parent is cancelled raises the
    child's error alone. Whoever handles that error and goes on has to ask here first.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
