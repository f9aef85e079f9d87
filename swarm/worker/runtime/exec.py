"""Programs run in a container beside its own: how they are started and ended, and their streams.

In: a running container's id and a process specification. Out: an `ExecProcess`. Invariants: after `close`
the program, the runtime that started it and every descriptor are gone; nothing is read before it is asked
for, so a slow reader holds up the program and not this process's memory.
Source: crun(1) 1.8.1 and runc(8) 1.1.5 exec; man 7 pty.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import termios
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from swarm.base.aio import first_of
from swarm.base.errors import SwarmError, Temporary
from swarm.base.trees import remove_tree
from swarm.worker.runtime.console import ConsoleSocket
from swarm.worker.runtime.crun import OciRuntime, environment, explain
from swarm.worker.runtime.pidfd import Process, open_process

START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0
_BLOCK = 32 * 1024
_LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class Chunk:
    stream: str
    """`stdout` or `stderr`; a terminal has stdout only."""
    data: bytes


@dataclass(slots=True)
class _Streams:
    """This side's descriptors; a terminal is input and output in one."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    console: int | None = None

    def close(self, descriptor: int) -> None:
        for name in ("stdin", "stdout", "stderr"):
            if getattr(self, name) == descriptor:
                setattr(self, name, None)
        if descriptor != self.console:
            os.close(descriptor)

    def close_all(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr):
            if descriptor is not None:
                self.close(descriptor)
        if self.console is not None:
            os.close(self.console)
            self.console = None


@dataclass(slots=True)
class _Started:
    """The runtime's process, which lives as long as the program, and the program's pid on the host."""

    runtime: asyncio.subprocess.Process
    pid: int = 0


class ExecProcess:
    """One reader and one writer at a time; `close` may be called at any time, and again."""

    def __init__(self, started: _Started, streams: _Streams) -> None:
        self._started = started
        self._streams = streams
        self._is_closed = False
        self._waiting: set[asyncio.Event] = set()
        self._ending = asyncio.ensure_future(started.runtime.wait())
        self._ending.add_done_callback(lambda _: self._wake())
        self._reading, self._writing, self._closing = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()

    @property
    def pid(self) -> int:
        """On the host."""
        return self._started.pid

    async def read(self) -> Chunk | None:
        """What the program writes next; None when it has ended, or has closed its outputs."""
        async with self._reading:
            while not self._is_closed:
                # Asked first: what was written before the end is then still read.
                has_ended = self._ending.done()
                if (piece := self._read_now()) is not None:
                    return piece
                outputs = [fd for fd in (self._streams.stdout, self._streams.stderr) if fd is not None]
                if has_ended or not outputs:  # what its children may write later is nobody's
                    return None
                await self._ready(outputs)
            return None

    async def write(self, data: bytes) -> None:
        """All of `data` to the program's input; one that does not read any more gets none.

        The runtime holds the input open: one that has closed it is waited for until it ends.
        """
        async with self._writing:
            rest = memoryview(data)
            while rest and self._streams.stdin is not None and not self._is_closed:
                try:
                    rest = rest[os.write(self._streams.stdin, rest) :]
                except BlockingIOError:
                    if self._ending.done():
                        self.close_input()
                    else:
                        await self._ready([], self._streams.stdin)
                except OSError:
                    self.close_input()

    def close_input(self) -> None:
        """The program reads the end of its input. A terminal has no such end."""
        if self._streams.stdin is not None:
            self._streams.close(self._streams.stdin)

    def resize(self, rows: int, columns: int) -> None:
        """Of the terminal; without one nothing happens."""
        if self._streams.console is not None:
            height, width = (min(max(number, 0), 0xFFFF) for number in (rows, columns))
            packed = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(self._streams.console, termios.TIOCSWINSZ, packed)

    async def wait(self) -> int:
        """The program's exit code, 128 and more for a signal."""
        code = await self._started.runtime.wait()
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End the program and its process group."""
        _kill(self._started)

    async def close(self) -> None:
        """Kill it if it runs, and let go of all it has here."""
        async with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            self._wake()
            try:
                await _end(self._started)
            finally:
                self._ending.cancel()
                async with self._reading, self._writing:
                    self._streams.close_all()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def starts(self, folder: Path) -> int:
        """The program's pid, once it is executed; 0 when it never is.

        The runtime writes the pid down then, and tells nobody: so it is looked for.
        """
        while not self._started.pid:
            has_ended = self._ending.done()
            with suppress(OSError, ValueError):
                self._started.pid = int((folder / "pid").read_text())
            if has_ended:
                break
            await asyncio.wait({self._ending}, timeout=_LOOK_S)
        return self._started.pid

    def _read_now(self) -> Chunk | None:
        for name in ("stdout", "stderr"):
            descriptor = getattr(self._streams, name)
            if descriptor is None:
                continue
            try:
                data = os.read(descriptor, _BLOCK)
            except BlockingIOError:
                continue
            except OSError:  # a terminal whose other side is closed
                data = b""
            if data:
                return Chunk(name, data)
            self._streams.close(descriptor)
        return None

    async def _ready(self, readable: list[int], writable: int | None = None) -> None:
        """Until one of the descriptors can be used, the program has ended, or `close` is called."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        self._waiting.add(event)
        for descriptor in readable:
            loop.add_reader(descriptor, event.set)
        if writable is not None:
            loop.add_writer(writable, event.set)
        try:
            if not self._is_closed and not self._ending.done():
                await event.wait()
        finally:
            self._waiting.discard(event)
            for descriptor in readable:
                loop.remove_reader(descriptor)
            if writable is not None:
                loop.remove_writer(writable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A program to be started in a running container."""

    runtime: OciRuntime
    container_id: str
    process: dict[str, object] = field(repr=False)
    """OCI; its variables may be secret."""
    folder: Path
    """Made for the start, and gone after it. Not on a disk."""
    stdin: bool = False

    @property
    def command(self) -> str:
        args = self.process["args"]
        return str(args[0]) if isinstance(args, list) else ""

    def argv(self, *more: str) -> list[str]:
        folder, program = self.folder, self.runtime
        argv = [str(program.program), "--log", str(folder / "log"), "--log-format", "json"]
        argv += [*program.arguments, "exec", "--pid-file", str(folder / "pid")]
        return [*argv, "--process", str(folder / "process.json"), *more, self.container_id]

    def failure(self) -> SwarmError:
        """Why the runtime has given up."""
        message = ""
        with suppress(OSError):
            message = (self.folder / "log").read_text(errors="replace")
        return explain(message, self.command)


async def start(launch: Launch) -> ExecProcess:
    """Start the program.

    Raises:
        Fatal: it cannot be executed (`exit_code` 127 or 126, as in a shell).
        Temporary: the runtime does not get it started in time.
    """
    launch.folder.mkdir(mode=0o700)
    try:
        (launch.folder / "process.json").write_text(json.dumps(launch.process))
        return await (_with_terminal(launch) if launch.process["terminal"] else _with_pipes(launch))
    finally:
        remove_tree(launch.folder)


async def _with_pipes(launch: Launch) -> ExecProcess:
    with ExitStack() as theirs, ExitStack() as ours:
        streams, ends = _Streams(), {}
        for name in ("stdin", "stdout", "stderr") if launch.stdin else ("stdout", "stderr"):
            reader, writer = os.pipe()
            own, ends[name] = (writer, reader) if name == "stdin" else (reader, writer)
            theirs.callback(os.close, ends[name])
            os.set_blocking(own, False)
            setattr(streams, name, own)
        ours.callback(streams.close_all)
        started = await _spawn(launch.argv(), ends)
        theirs.close()
        ours.pop_all()
        return await _watched(launch, started, streams)


async def _with_terminal(launch: Launch) -> ExecProcess:
    with ConsoleSocket(launch.folder) as sockets:
        argv = launch.argv("--console-socket", sockets.address)
        started = await _spawn(argv, {}, keep=sockets.folder_fd)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                console = await first_of(sockets.receive(), _given_up(launch, started))
        except BaseException as error:
            await _end(started)
            if isinstance(error, TimeoutError):
                raise Temporary(f"no terminal within {START_TIMEOUT_S:.0f} s") from None
            raise
    streams = _Streams(stdin=console if launch.stdin else None, stdout=console, console=console)
    return await _watched(launch, started, streams)


async def _spawn(argv: list[str], ends: dict[str, int], keep: int | None = None) -> _Started:
    nothing = asyncio.subprocess.DEVNULL
    runtime = await asyncio.create_subprocess_exec(
        *argv,
        stdin=ends.get("stdin", nothing),
        stdout=ends.get("stdout", nothing),
        stderr=ends.get("stderr", nothing),
        env=environment(),
        pass_fds=() if keep is None else (keep,),
        start_new_session=True,
    )
    return _Started(runtime)


async def _watched(launch: Launch, started: _Started, streams: _Streams) -> ExecProcess:
    """The process, once the program runs in it. Raises: Fatal, Temporary."""
    process = ExecProcess(started, streams)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            if not await process.starts(launch.folder):
                raise launch.failure()
    except BaseException as error:
        await process.close()
        if isinstance(error, TimeoutError):
            raise Temporary(f"the program did not start within {START_TIMEOUT_S:.0f} s") from None
        raise
    return process


async def _given_up(launch: Launch, started: _Started) -> int:
    await started.runtime.wait()
    raise launch.failure()


async def _end(started: _Started) -> None:
    """Kill the program, and see the runtime end with it."""
    _kill(started)
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await started.runtime.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            started.runtime.kill()


def _kill(started: _Started) -> None:
    if started.runtime.returncode is not None:
        return
    runtime_pid = started.runtime.pid
    program = open_process(started.pid, lambda proc: _parent(proc) == runtime_pid) if started.pid else None
    if program is None:
        with suppress(ProcessLookupError):
            started.runtime.kill()
    else:
        _kill_group(program)
        program.close()


def _parent(proc: Path) -> int:
    return int((proc / "stat").read_text().rpartition(")")[2].split()[1])


def _kill_group(program: Process) -> None:
    """The runtime gives each program a session of its own, so the group is its alone."""
    with suppress(ProcessLookupError):
        group = os.getpgid(program.pid)
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
    program.send(signal.SIGKILL)
