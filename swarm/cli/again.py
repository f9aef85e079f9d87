"""Changes that read an object, say what is to differ, and write it back.

In: such a change. Out: what it returns. Invariant: it is made of what is there when it is written: if the
leader, say, has written the object in between, the change is made anew of that, where Docker gives up.
Not for a change whose meaning depends on what was there, such as a rollback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from swarm.api.client import ApiError

TRIES = 5
CONFLICT = "update out of sequence"

T = TypeVar("T")


def again(change: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        try:
            return change()
        except ApiError as error:
            if not error.message.endswith(CONFLICT):
                raise
    return change()
