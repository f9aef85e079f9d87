"""Commands in containers in memory: `cat` echoes, `yes` floods, `exit N` ends; there is no `nope`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from swarm.base.errors import Fatal
from swarm.model.execs import COMMAND_NOT_FOUND, ExecConfig, ExecOutput, TerminalSize

PIECE = b"y\n" * 16384


@dataclass
class FakeProcess:
    config: ExecConfig
    sizes: list[TerminalSize] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    written: int = 0
    """Pieces of output that were taken."""
    _lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def write(self, piece: bytes) -> None:
        if self.config.args[0] != "cat":
            raise BrokenPipeError
        self._lines.put_nowait(piece)

    def close_stdin(self) -> None:
        self._lines.put_nowait(None)

    def resize(self, size: TerminalSize) -> None:
        self.sizes.append(size)
        self._lines.put_nowait(f"{size.width}x{size.height}\n".encode())

    async def read(self) -> ExecOutput | None:
        match self.config.args[0]:
            case "cat":
                line = await self._lines.get()
                return None if line is None else ExecOutput(stdout=line)
            case "yes":
                self.written += 1
                return ExecOutput(stdout=PIECE)
            case "sleep":
                await self.closed.wait()
                return None
            case "warn":
                self.config = ExecConfig(args=("exit", "3"))
                return ExecOutput(stderr=b"careful\n")
            case _:
                return None

    async def wait(self) -> int:
        return int(self.config.args[1]) if self.config.args[0] == "exit" else 0

    async def close(self) -> None:
        self.closed.set()
        self._lines.put_nowait(None)


class FakeExecContainers:
    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.started = asyncio.Event()

    async def exec(self, container_id: str, config: ExecConfig) -> FakeProcess:
        if config.args[0] == "nope":
            raise Fatal('exec: "nope": executable file not found in $PATH', COMMAND_NOT_FOUND)
        self.processes.append(FakeProcess(config))
        self.started.set()
        return self.processes[-1]
