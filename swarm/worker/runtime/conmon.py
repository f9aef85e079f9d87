"""conmon: the small process that outlives swarmd and keeps a container's log and exit status.

In: a prepared bundle. Out: a created (not started) container and its pid, by conmon's sync pipe. Invariant:
conmon double-forks, so it and the container live on when swarmd dies; it writes the exit status to a file of
its own directory before it ends. Source: conmon(8) 2.1.6.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from swarm.base.errors import Temporary
from swarm.worker.runtime.bundle import BundlePaths
from swarm.worker.runtime.config import ContainerConfig
from swarm.worker.runtime.crun import OciRuntime, environment, explain

CREATE_TIMEOUT_S = 60.0
_MAX_ANSWER_BYTES = 64 * 1024


class Conmon:
    """Starts supervisors; knows the command line and nothing of their later life."""

    def __init__(self, program: Path, runtime: OciRuntime) -> None:
        self._program = program
        self._runtime = runtime

    def command(self, config: ContainerConfig, paths: BundlePaths) -> list[str]:
        """The argv. Every path in it is ours, so a stray conmon can be told by it."""
        argv = [str(self._program), "--api-version", "1", "-c", config.id, "-u", config.id]
        argv += ["-n", config.name or config.id, "-r", str(self._runtime.program)]
        for argument in self._runtime.arguments:
            argv += ["--runtime-arg", argument]
        argv += ["-b", str(paths.bundle), "-p", str(paths.pid), "-P", str(paths.conmon_pid)]
        argv += ["--exit-dir", str(paths.exits), "--persist-dir", str(paths.run)]
        argv += [
            *(("-t",) if config.tty else ()),
            *(("-i", "--leave-stdin-open") if config.open_stdin else ()),
        ]
        return [*argv, "--full-attach", "-l", f"k8s-file:{paths.log}" if config.log.is_kept else "none"]

    async def create(self, config: ContainerConfig, paths: BundlePaths) -> int:
        """Create the container of the bundle; returns the pid of its first process.

        Raises:
            Fatal: the runtime refuses, in Docker's words where it has them.
        """
        read_fd, write_fd = os.pipe()
        try:
            with paths.conmon_messages.open("wb") as messages:
                process = await asyncio.create_subprocess_exec(
                    *self.command(config, paths),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=messages,
                    cwd=paths.bundle,
                    env={**environment(), "_OCI_SYNCPIPE": str(write_fd)},
                    pass_fds=(write_fd,),
                )
            os.close(write_fd)
            write_fd = -1
            try:
                async with asyncio.timeout(CREATE_TIMEOUT_S):
                    answer = await _read_line(read_fd)
                    await process.wait()
            except TimeoutError:
                raise Temporary(
                    f"conmon took more than {CREATE_TIMEOUT_S:.0f} s to create {config.id}"
                ) from None
            finally:
                if process.returncode is None:
                    process.kill()
        finally:
            os.close(read_fd)
            if write_fd >= 0:
                os.close(write_fd)
        return _pid(answer, paths, config.args[0])


def _pid(answer: bytes, paths: BundlePaths, command: str) -> int:
    try:
        decoded = json.loads(answer)
        pid = int(decoded["data"])
    except (ValueError, KeyError, TypeError):
        raise Temporary(
            f"conmon failed: {paths.conmon_messages.read_text(errors='replace').strip()}"
        ) from None
    if pid <= 0:
        raise explain(str(decoded.get("message", "")), command)
    return pid


async def _read_line(descriptor: int) -> bytes:
    """Bytes up to a newline or the end of the pipe."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    collected = b""
    while b"\n" not in collected and len(collected) < _MAX_ANSWER_BYTES:
        ready = asyncio.Event()
        loop.add_reader(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)
        chunk = os.read(descriptor, 4096)
        if not chunk:
            break
        collected += chunk
    return collected
