"""A program of ours that runs beside swarmd, from swarmd's side: found or started, given orders, ended.

In: the module that is the program, the unix socket that it listens on. Out: its answers, lines of JSON.

Invariant: the program outlives swarmd, and the next swarmd goes on with the one that it finds, if it is of
the same version. Whoever does not answer in time is killed. `side_program.py` is the program's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import swarm
from swarm.base.failpoint import failpoint

START_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 5.0
_RETRY_S = 0.02
_LARGEST_LINE = 1 << 20


class SideProcess:
    def __init__(self, module: str, path: Path) -> None:
        self._module = module
        self._path = path
        self._connection: _Connection | None = None
        self._pid = 0

    @property
    def is_reached(self) -> bool:
        return self._connection is not None

    @property
    def is_lost(self) -> bool:
        """It was reached, and has ended since."""
        return self._connection is not None and self._connection.is_lost

    async def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Give an order; the program is started if none is there. Raises: OSError."""
        if self._connection is None:
            self._connection = await self._reach()
        return await self._connection.ask(order)

    async def end(self) -> None:
        """End the program, also one that a former swarmd has left."""
        try:
            connection = self._connection or await _Connection.open(self._path)
            await connection.dismiss()
        except OSError:
            if self._pid:  # ours, and not listening yet
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
        await self.let_go()

    async def let_go(self) -> None:
        """Of a program that has ended."""
        self.close()
        if self._pid:
            with contextlib.suppress(ChildProcessError, TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await asyncio.to_thread(os.waitpid, self._pid, 0)
            self._pid = 0

    def close(self) -> None:
        """Let go of it: it goes on."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    async def _reach(self) -> _Connection:
        """The program that is there, if it is of this version; else a new one."""
        with contextlib.suppress(OSError):
            found = await _Connection.open(self._path)
            if found.version == swarm.__version__:
                return found
            await found.dismiss()
        await asyncio.to_thread(self._spawn)
        failpoint("network.side.started")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    with contextlib.suppress(OSError):
                        return await _Connection.open(self._path)
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError as error:
            raise OSError(f"it did not start within {START_TIMEOUT_S:.0f} s") from error

    def _spawn(self) -> None:
        """In a session of its own: neither swarmd's end nor a signal to its terminal ends it."""
        argv = [sys.executable, "-P", "-m", self._module, os.fspath(self._path)]
        streams = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        self._pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=streams, setsid=True)


class _Connection:
    """To a running program. Whoever does not answer in time is killed: the next order starts another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.version = ""

    @classmethod
    async def open(cls, path: Path) -> _Connection:
        """Raises: OSError."""
        made = cls(*await asyncio.open_unix_connection(path, limit=_LARGEST_LINE))
        made.version = (await made._hear())["version"]
        return made

    @property
    def is_lost(self) -> bool:
        return self._reader.at_eof()

    def close(self) -> None:
        self._writer.close()

    async def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Raises: OSError."""
        self._writer.write(json.dumps(order).encode() + b"\n")
        return await self._hear()

    async def dismiss(self) -> None:
        """End the program. Raises: OSError."""
        self._writer.write(b'{"end": true}\n')
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while await self._reader.read(_LARGEST_LINE):
                    pass
        except TimeoutError:
            self._kill()
        self.close()

    async def _hear(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                line = await self._reader.readline()
        except TimeoutError as error:
            self._kill()
            raise OSError(f"it said nothing within {ANSWER_TIMEOUT_S:.0f} s") from error
        if not line:
            raise OSError("it has ended")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def _kill(self) -> None:
        connection: socket.socket = self._writer.get_extra_info("socket")
        pid, _, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
