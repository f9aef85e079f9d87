"""Runs one program to its end, with a deadline, and leaves nothing of it behind.

In: an argv list (never a shell line), limits. Out: exit code and bounded output.

Invariant: when `run` returns or raises (cancellation and deadline included), the program and its process
group are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CHUNK = 64 * 1024
_STDERR_KEPT = 16 * 1024
_KILL_WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    code: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to execute. `stdin` and `keep_fds` are open descriptors that the caller closes."""

    argv: Sequence[str]
    timeout_s: float
    stdin: int = DEVNULL
    env: Mapping[str, str] | None = None
    keep_fds: tuple[int, ...] = ()
    stdout_limit: int = 64 * 1024
    file_size_limit: int | None = None


class OutputTooLong(Exception):
    """The program wrote more than `stdout_limit` bytes."""


async def run(program: Program) -> Finished:
    """Run `program` to its end.

    Raises:
        TimeoutError: the deadline passed.
        OutputTooLong: see there.
        FileNotFoundError: the program is not installed.
    """
    process = await asyncio.create_subprocess_exec(
        *program.argv,
        stdin=program.stdin,
        stdout=PIPE,
        stderr=PIPE,
        env=None if program.env is None else dict(program.env),
        pass_fds=program.keep_fds,
        start_new_session=True,
    )
    try:
        if program.file_size_limit is not None:
            limits = (program.file_size_limit, program.file_size_limit)
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        async with asyncio.timeout(program.timeout_s):
            stdout, stderr = await asyncio.gather(_read(process, program.stdout_limit), _read_tail(process))
            code = await process.wait()
    finally:
        await _end(process)
    if stdout is None:
        raise OutputTooLong(f"{program.argv[0]} wrote more than {program.stdout_limit} bytes")
    return Finished(code=code, stdout=stdout, stderr=stderr)


async def _read(process: Process, limit: int) -> bytes | None:
    """All of standard output; None, and the program killed, when it is longer than `limit`."""
    assert process.stdout is not None
    chunks: list[bytes] = []
    length = 0
    while chunk := await process.stdout.read(_CHUNK):
        length += len(chunk)
        if length > limit:
            _kill_group(process)
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def _read_tail(process: Process) -> str:
    assert process.stderr is not None
    tail = b""
    while chunk := await process.stderr.read(_CHUNK):
        tail = (tail + chunk)[-_STDERR_KEPT:]
    return tail.decode(errors="replace")


async def _end(process: Process) -> None:
    if process.returncode is None:
        _kill_group(process)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_WAIT_S)


def _kill_group(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
