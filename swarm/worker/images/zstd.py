"""Decompresses zstd through its program, without privileges.

In: an open file. Out: a pipe to read from, and whether what came through it was all there was.
Invariant: the program is gone when the context is left.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from swarm.base.errors import Temporary
from swarm.worker.images.errors import InvalidImage

_NOBODY = 65534
_END_WAIT_S = 10.0


class Decompression:
    def __init__(self, process: Process, output: int) -> None:
        self._process = process
        self._output: int | None = output

    @property
    def output(self) -> int:
        """The pipe's end to read from."""
        assert self._output is not None
        return self._output

    @property
    def pid(self) -> int:
        return self._process.pid

    async def check(self) -> None:
        """Call it when nothing more is read. One that is stopped by that, before the end, is no failure.

        Raises: InvalidImage when the stream is at fault; Temporary when the program was killed.
        """
        self._close()
        async with asyncio.timeout(_END_WAIT_S):
            code = await self._process.wait()
        if code > 0:
            raise InvalidImage("cannot unpack the archive: the layer is not valid zstd")
        if code < 0 and code != -signal.SIGPIPE:
            raise Temporary(f"zstd was ended by {signal.Signals(-code).name} while it decompressed a layer")

    async def end(self) -> None:
        self._close()
        if self._process.returncode is None:
            self._process.kill()
            await asyncio.wait_for(self._process.wait(), _END_WAIT_S)

    def _close(self) -> None:
        if self._output is not None:
            os.close(self._output)
        self._output = None


@asynccontextmanager
async def decompressed(packed: int) -> AsyncIterator[Decompression]:
    """Raises: Temporary without the program."""
    zstd = shutil.which("zstd")
    if zstd is None:
        raise Temporary("the layer is compressed with zstd: install the zstd program on this node")
    reader, writer = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(zstd, "-dc", "--memory=256MB"),
            stdin=packed,
            stdout=writer,
            stderr=DEVNULL,
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            cwd="/",
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    found = Decompression(process, reader)
    try:
        yield found
    finally:
        await found.end()
