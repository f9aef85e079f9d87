"""Processes by pidfd: open one that is certainly the right one, wait for its end, signal it.

Invariant: a pid that the kernel gave to somebody else meanwhile is never taken for ours: the descriptor is
opened first and the process checked through it being still alive afterwards. Source: man 2 pidfd_open.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    descriptor: int

    @property
    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: int) -> None:
        """Send a signal; to one that has ended, none."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def close(self) -> None:
        os.close(self.descriptor)


def open_process(pid: int, is_ours: Callable[[Path], bool]) -> Process | None:
    """The process `pid`, if it lives and `is_ours(/proc/<pid>)` says so."""
    try:
        process = Process(pid, os.pidfd_open(pid))
    except (ProcessLookupError, ValueError):
        return None
    with suppress(OSError):
        if is_ours(Path("/proc", str(pid))) and not process.has_ended:
            return process
    process.close()
    return None


async def first_end(*processes: Process) -> None:
    """Return when one of `processes` has ended; several callers may wait for the same."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # The loop knows one reader per descriptor, so each waiter brings its own.
    descriptors = [os.dup(process.descriptor) for process in processes]
    try:
        for descriptor in descriptors:
            loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        for descriptor in descriptors:
            loop.remove_reader(descriptor)
            os.close(descriptor)
