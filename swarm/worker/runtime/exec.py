"""A program run in a container beside its own: its streams, its end.

In: a running container's id and a process specification. Out: an `ExecProcess`. Invariants: when the context
ends, however it does, the program, the runtime that started it and every descriptor are gone; nothing is
read before it is asked for, so a slow reader holds up the program and not this process's memory.
Source: crun(1) 1.8.1 exec; man 7 pty.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
import termios
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from swarm.base.aio import first_of
from swarm.base.errors import Temporary
from swarm.worker.runtime.crun import OciRuntime, environment, explain
from swarm.worker.runtime.pidfd import Process, open_process
from swarm.worker.trees import remove_tree

START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0
_BLOCK = 32 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    stream: str
    """`stdout` or `stderr`; a terminal has stdout only."""
    data: bytes


@dataclass(slots=True)
class _Streams:
    """This side's descriptors."""

    outputs: dict[int, str]
    input: int | None
    console: int | None = None


class ExecProcess:
    """One reader, one writer; see `run_in_container`."""

    def __init__(
        self, runtime: asyncio.subprocess.Process, streams: _Streams, folder: Path, command: str
    ) -> None:
        self._runtime = runtime
        self._runtime_fd = os.pidfd_open(runtime.pid)
        self._streams = streams
        self._folder = folder
        self._command = command

    @property
    def pid(self) -> int:
        """On the host; 0 before it has started, or when it never did."""
        with suppress(OSError, ValueError):
            return int((self._folder / "pid").read_text())
        return 0

    async def read(self) -> Chunk | None:
        """What the program writes next; None when it has ended, or has closed its outputs."""
        outputs = self._streams.outputs
        while outputs:
            has_ended = self._runtime_has_ended()
            for descriptor, name in list(outputs.items()):
                try:
                    data = os.read(descriptor, _BLOCK)
                except BlockingIOError:
                    continue
                except OSError:  # a terminal whose other side is closed
                    data = b""
                if data:
                    outputs[descriptor] = outputs.pop(descriptor)  # the other stream's turn
                    return Chunk(name, data)
                del outputs[descriptor]
                if descriptor != self._streams.console:
                    os.close(descriptor)
            if has_ended:  # what a child of the program may write later is nobody's
                return None
            await _readable([*outputs, self._runtime_fd])
        return None

    async def write(self, data: bytes) -> None:
        """All of `data` to the program's input; a program that does not read any more gets none."""
        rest = memoryview(data)
        while rest and self._streams.input is not None:
            try:
                rest = rest[os.write(self._streams.input, rest) :]
            except BlockingIOError:
                await _writable(self._streams.input)
            except OSError:
                self.close_input()

    def close_input(self) -> None:
        """The program reads the end of its input. A terminal has no such end."""
        descriptor, self._streams.input = self._streams.input, None
        if descriptor is not None and descriptor != self._streams.console:
            os.close(descriptor)

    def resize(self, rows: int, columns: int) -> None:
        """Of the terminal; without one nothing happens."""
        if self._streams.console is not None:
            size = struct.pack("HHHH", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
            fcntl.ioctl(self._streams.console, termios.TIOCSWINSZ, size)

    async def wait(self) -> int:
        """The program's exit code.

        Raises:
            Fatal: it could not be run (`exit_code` 127 or 126 as in a shell).
        """
        code = await self._runtime.wait()
        if code != 0 and not self.pid:
            message = ""
            with suppress(OSError):
                message = (self._folder / "log").read_text(errors="replace")
            raise explain(message, self._command)
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End the program and what it has started in its process group."""
        pid = self.pid
        process = open_process(pid, lambda proc: _parent(proc) == self._runtime.pid) if pid else None
        if process is None:
            with suppress(ProcessLookupError):
                self._runtime.kill()
            return
        try:
            _kill_group(process)
        finally:
            process.close()

    def attach_console(self, console: int, *, stdin: bool) -> None:
        """Take the terminal over."""
        self._streams = _Streams({console: "stdout"}, console if stdin else None, console)

    async def close(self) -> None:
        """End it all."""
        try:
            if self._runtime.returncode is None:
                self.kill()
                await self._reap()
        finally:
            self.close_input()
            for descriptor in self._streams.outputs:
                if descriptor != self._streams.console:
                    os.close(descriptor)
            self._streams.outputs.clear()
            if self._streams.console is not None:
                os.close(self._streams.console)
                self._streams.console = None
            os.close(self._runtime_fd)

    async def _reap(self) -> None:
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._runtime.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._runtime.kill()

    def _runtime_has_ended(self) -> bool:
        return Process(self._runtime.pid, self._runtime_fd).has_ended


@asynccontextmanager
async def run_in_container(
    runtime: OciRuntime, container_id: str, folder: Path, process: dict[str, object], *, stdin: bool
) -> AsyncIterator[ExecProcess]:
    """Start `process` (OCI) in the running container; `folder` is made for it and goes with it.

    Raises:
        Temporary: the runtime does not get it started in time.
        Fatal: see `ExecProcess.wait`; with a terminal at once.
    """
    folder.mkdir(mode=0o700)
    try:
        (folder / "process.json").write_text(json.dumps(process))
        argv = [
            str(runtime.program),
            "--log",
            str(folder / "log"),
            "--log-format",
            "json",
            *runtime.arguments,
        ]
        argv += ["exec", "--pid-file", str(folder / "pid"), "--process", str(folder / "process.json")]
        start = _with_terminal if process["terminal"] else _with_pipes
        started = await start(argv, container_id, folder, stdin)
        try:
            yield started
        finally:
            await started.close()
    finally:
        remove_tree(folder)


async def _with_pipes(argv: list[str], container_id: str, folder: Path, stdin: bool) -> ExecProcess:
    with ExitStack() as theirs, ExitStack() as ours:
        ends: dict[str, tuple[int, int]] = {}
        for name in ("stdin", "stdout", "stderr") if stdin else ("stdout", "stderr"):
            reader, writer = os.pipe()
            own, other = (writer, reader) if name == "stdin" else (reader, writer)
            ours.callback(os.close, own)
            theirs.callback(os.close, other)
            os.set_blocking(own, False)
            ends[name] = (own, other)
        runtime = await asyncio.create_subprocess_exec(
            *argv,
            container_id,
            stdin=ends["stdin"][1] if stdin else asyncio.subprocess.DEVNULL,
            stdout=ends["stdout"][1],
            stderr=ends["stderr"][1],
            env=environment(),
            start_new_session=True,
        )
        outputs = {ends[name][0]: name for name in ("stdout", "stderr")}
        streams = _Streams(outputs, ends["stdin"][0] if stdin else None)
        started = ExecProcess(runtime, streams, folder, _command(folder))
        ours.pop_all()
        return started


async def _with_terminal(argv: list[str], container_id: str, folder: Path, stdin: bool) -> ExecProcess:
    with ExitStack() as stack:
        # By descriptor: the folder's path may be longer than a socket's address.
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, folder_fd)
        address = f"/proc/self/fd/{folder_fd}/console"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(1)
        runtime = await asyncio.create_subprocess_exec(
            *argv,
            "--console-socket",
            address,
            container_id,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            pass_fds=(folder_fd,),
            start_new_session=True,
        )
        started = ExecProcess(runtime, _Streams({}, None), folder, _command(folder))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                console = await first_of(_console(listener), _failed(started))
        except BaseException as error:
            await started.close()
            if isinstance(error, TimeoutError):
                raise Temporary(f"no terminal within {START_TIMEOUT_S:.0f} s") from None
            raise
    os.set_blocking(console, False)
    started.attach_console(console, stdin=stdin)
    return started


async def _console(listener: socket.socket) -> int:
    """The terminal's controlling side, as the runtime sends it."""
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    with connection:
        await _readable([connection.fileno()])
        _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
    if not descriptors:
        raise Temporary("the runtime sent no terminal")
    return descriptors[0]


async def _failed(started: ExecProcess) -> int:
    code = await started.wait()
    raise Temporary(f"the program ended with code {code} before it had a terminal")


def _command(folder: Path) -> str:
    args = json.loads((folder / "process.json").read_text())["args"]
    return str(args[0])


def _parent(proc: Path) -> int:
    return int((proc / "stat").read_text().rpartition(")")[2].split()[1])


def _kill_group(process: Process) -> None:
    """The runtime gives each program a session of its own, so the group is its alone."""
    with suppress(ProcessLookupError):
        group = os.getpgid(process.pid)
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
    process.send(signal.SIGKILL)


async def _readable(descriptors: Iterable[int]) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    watched = list(descriptors)
    for descriptor in watched:
        loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        for descriptor in watched:
            loop.remove_reader(descriptor)


async def _writable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
