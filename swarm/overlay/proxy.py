"""This host's HAProxy, from swarmd's side: started with the first port that needs it, ended with the last.

In: a configuration. Out: one process that serves by it, and those before it until their connections end.

A change starts a new process: it takes the listening socket over from the one before, which goes on with the
connections that it has, so none is lost. A configuration that HAProxy refuses changes nothing.

Invariant: the process outlives swarmd. What it serves by is in a file beside its pid, there only while that
is certain; both are on a tmpfs and looked at each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from swarm.base.errors import Temporary
from swarm.base.failpoint import failpoint
from swarm.base.log import Logger

TIMEOUT_S = 10.0


class Proxy:
    def __init__(self, directory: Path, log: Logger) -> None:
        self.directory = directory
        self._log = log
        self._wanted = directory / "new.cfg"
        self._in_force = directory / "haproxy.cfg"
        self._pid_file = directory / "haproxy.pid"
        self._problem = ""

    @property
    def is_serving(self) -> bool:
        return self._find_pid() != 0

    async def serve(self, config: str) -> int:
        """Serve by `config`; by none if it is empty. Returns 1 if anything had to be done.

        What does not work is logged once: the ports are refused until it does.
        """
        if not config:
            return self._end()
        try:
            changed = await self._serve(config)
        except (Temporary, OSError) as error:
            if str(error) != self._problem:
                self._log.warning("ports with PROXY protocol are not served", error=str(error))
            self._problem = str(error)
            return 0
        self._problem = ""
        return changed

    def remove(self) -> None:
        """End every process, connections or not, and remove the files."""
        for pid in self._list_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for name in ("new.cfg", "haproxy.cfg", "haproxy.pid", "control.sock"):
            (self.directory / name).unlink(missing_ok=True)
        for directory in (self.directory / "empty", self.directory):
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()

    async def _serve(self, config: str) -> int:
        pid = self._find_pid()
        if pid and _read(self._in_force) == config:
            return 0
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "empty").mkdir(mode=0o755, exist_ok=True)
        for stale in (self._in_force, self._wanted):
            stale.unlink(missing_ok=True)
        self._wanted.touch(mode=0o600)
        self._wanted.write_text(config)
        successor = ("-sf", str(pid)) if pid else ()
        control = self.directory / "control.sock"
        if pid and control.exists():
            successor = ("-x", str(control), *successor)
        await _run_haproxy("-D", "-f", str(self._wanted), "-p", str(self._pid_file), *successor)
        failpoint("network.proxy.started")
        self._wanted.rename(self._in_force)
        self._log.info("proxy started", replaced=pid)
        return 1

    def _end(self) -> int:
        """Connections that are open go on until they end."""
        pid = self._find_pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        self._pid_file.unlink(missing_ok=True)
        return int(bool(pid))

    def _find_pid(self) -> int:
        """The process that serves new connections; 0 if there is none."""
        text = _read(self._pid_file).strip()
        return int(text) if text.isdecimal() and self._is_ours(int(text)) else 0

    def _list_processes(self) -> list[int]:
        return [
            int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and self._is_ours(int(p.name))
        ]

    def _is_ours(self, pid: int) -> bool:
        """A HAProxy with a configuration of this directory; a pid may have been given to another program."""
        argv = _read(Path(f"/proc/{pid}/cmdline")).split("\0")
        return os.path.basename(argv[0]) == "haproxy" and str(self._wanted) in argv


def _read(path: Path) -> str:
    """Nothing if it is not there; a process may end while it is looked at."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def _run_haproxy(*argv: str) -> None:
    """Until it listens and has put itself in the background. Raises: Temporary with its first complaint."""
    try:
        process = await asyncio.create_subprocess_exec(
            "haproxy",
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise Temporary("haproxy is not installed: install the haproxy package") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, errors = await process.communicate()
    except TimeoutError as error:
        raise Temporary(f"haproxy did not start within {TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = [line for line in errors.decode(errors="replace").splitlines() if "[ALERT]" in line]
        raise Temporary(f"haproxy did not start: {lines[0] if lines else 'no reason given'}")
