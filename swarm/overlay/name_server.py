"""The name server's process, from swarmd's side: started when a task needs it, told of changes, then ended.

In: the items of `swarm.overlay.names`. Out: a server that answers by them.

Invariant: the server outlives swarmd, and the next swarmd goes on with the one that it finds, if it is of the
same version. What was not confirmed counts as not told.
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
from swarm.base.errors import Temporary
from swarm.base.log import Logger
from swarm.overlay.names import Item, difference, has_tasks

START_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 5.0
_RETRY_S = 0.02
_LARGEST_LINE = 1 << 20


class NameServer:
    def __init__(self, path: Path, log: Logger) -> None:
        self._path = path
        self._log = log
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._told: dict[str, Item] = {}
        self._pid = 0

    async def tell(self, items: Mapping[str, Item]) -> int:
        """Make the server answer by `items`. Returns how many had to be told.

        Raises: Temporary when it cannot be started or does not answer.
        """
        if not has_tasks(items):
            await self.end()
            return 0
        if self._streams is not None and self._streams[0].at_eof():
            self._log.warning("name server lost")
            await self._let_go()
        if self._streams is None:
            self._streams = await self._reach()
        is_first = not self._told
        updates, removals = difference(self._told, items)
        if not updates and not removals:
            return 0
        order = {"complete": is_first, "updates": updates, "removals": removals}
        self._told = dict(items)
        failed: dict[str, str] = (await self._ask(order))["failed"]
        for task_id, reason in failed.items():
            del self._told[f"task/{task_id}"]
            self._log.warning("names not served", task=task_id, error=reason)
        return len(updates) + len(removals)

    def serves(self, task_id: str) -> bool:
        return f"task/{task_id}" in self._told

    async def end(self) -> None:
        """End the server, also one that a former swarmd has left."""
        if self._streams is None:
            with contextlib.suppress(OSError):
                self._streams = await asyncio.open_unix_connection(self._path)
        if self._streams is not None:
            await self._dismiss()

    async def close(self) -> None:
        """Let go of it: it goes on."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None
        self._told = {}

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The server that is there, or a new one."""
        with contextlib.suppress(OSError):
            self._streams = await self._connect()
            if (await self._hear())["version"] == swarm.__version__:
                return self._streams
            await self._dismiss()
        await asyncio.to_thread(self._spawn)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    with contextlib.suppress(OSError):
                        self._streams = await self._connect()
                        await self._hear()
                        return self._streams
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError as error:
            raise Temporary(f"the name server did not start within {START_TIMEOUT_S:.0f} s") from error

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._path, limit=_LARGEST_LINE)

    def _spawn(self) -> None:
        """In a session of its own: neither swarmd's end nor a signal to its terminal ends it."""
        argv = [sys.executable, "-P", "-m", "swarm.overlay.dns", os.fspath(self._path)]
        nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        self._pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=nothing, setsid=True)

    async def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._streams is not None
        try:
            self._streams[1].write(json.dumps(order).encode() + b"\n")
            await self._streams[1].drain()
            return await self._hear()
        except OSError as error:
            await self._let_go()
            raise Temporary("the name server has ended") from error

    async def _hear(self) -> dict[str, Any]:
        """Its next line. One that says nothing is killed: the next call starts another."""
        assert self._streams is not None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                line = await self._streams[0].readline()
        except TimeoutError as error:
            self._kill()
            await self._let_go()
            raise Temporary(f"the name server did not answer within {ANSWER_TIMEOUT_S:.0f} s") from error
        if not line:
            raise ConnectionResetError("the name server has closed its connection")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def _kill(self) -> None:
        assert self._streams is not None
        connection: socket.socket = self._streams[1].get_extra_info("socket")
        pid, _, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def _dismiss(self) -> None:
        assert self._streams is not None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                writer.write(b'{"end": true}\n')
                while await reader.read(_LARGEST_LINE):
                    pass
        except (OSError, TimeoutError):
            self._kill()
        await self._let_go()

    async def _let_go(self) -> None:
        await self.close()
        if self._pid:
            with contextlib.suppress(ChildProcessError, TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await asyncio.to_thread(os.waitpid, self._pid, 0)
            self._pid = 0
