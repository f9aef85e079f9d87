"""Commands in containers in memory: `cat` echoes, `yes` floods, `exit N` ends; there is no `nope`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from swarm.base.errors import Fatal
from swarm.worker.runtime.exec import Chunk
from swarm.worker.runtime.exec_spec import ExecConfig

PIECE = b"y\n" * 16384


@dataclass
class FakeProcess:
    config: ExecConfig
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    written: int = 0
    """Pieces of output that were taken."""
    _lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def write(self, data: bytes) -> None:
        self._lines.put_nowait(data)

    def close_input(self) -> None:
        self._lines.put_nowait(None)

    def resize(self, rows: int, columns: int) -> None:
        self._lines.put_nowait(f"{columns}x{rows}\n".encode())

    async def read(self) -> Chunk | None:
        match self.config.args[0]:
            case "cat":
                line = await self._lines.get()
                return None if line is None else Chunk("stdout", line)
            case "yes":
                self.written += 1
                return Chunk("stdout", PIECE)
            case "sleep":
                await self.killed.wait()
                return None
            case "warn" if not self.written:
                self.written = 1
                return Chunk("stderr", b"careful\n")
            case _:
                return None

    async def wait(self) -> int:
        match self.config.args:
            case ("exit", code):
                return int(code)
            case ("warn", *_):
                return 3
            case _:
                return 137 * self.killed.is_set()

    def kill(self) -> None:
        self.killed.set()
        self._lines.put_nowait(None)


class FakeExecContainers:
    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.started = asyncio.Event()

    @asynccontextmanager
    async def exec(self, container_id: str, config: ExecConfig) -> AsyncIterator[FakeProcess]:
        if config.args[0] == "nope":
            raise Fatal('exec: "nope": executable file not found in $PATH', 127)
        process = FakeProcess(config)
        self.processes.append(process)
        self.started.set()
        try:
            yield process
        finally:
            process.kill()
            process.closed.set()
