"""How containers end: their processes made to be gone, and the status that conmon wrote.

Invariant: no wait here is without a limit; what does not die is said to be so.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from swarm.base.errors import Temporary
from swarm.worker.runtime import cgroups
from swarm.worker.runtime.bundle import BundlePaths
from swarm.worker.runtime.pidfd import Process, first_end, open_process
from swarm.worker.runtime.status import KILLED, ExitStatus

CONMON_END_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 10.0


async def ended(process: Process, timeout_s: float, complaint: str) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await first_end(process)
    except TimeoutError:
        raise Temporary(complaint) from None


async def end_conmon(conmon: Process) -> None:
    """conmon ends by itself when its container has; one that hangs is killed."""
    try:
        async with asyncio.timeout(CONMON_END_TIMEOUT_S):
            await first_end(conmon)
    except TimeoutError:
        conmon.send(signal.SIGKILL)
        await ended(conmon, KILL_TIMEOUT_S, f"conmon {conmon.pid} does not die")


def exit_status(container_id: str, paths: BundlePaths) -> ExitStatus:
    """What conmon wrote, or why it wrote nothing. The container has ended."""
    try:
        code = int(paths.exit_file.read_text())
    except (FileNotFoundError, ValueError):
        # No pid file means an empty /run: the machine was switched off and on.
        error = "supervisor lost" if paths.pid.exists() else "the host restarted while the container ran"
        return ExitStatus(code=KILLED, error=error, finished_at=_modified(paths.log))
    oom_killed = code == KILLED and paths.oom_file.exists()
    return ExitStatus(code=code, oom_killed=oom_killed, finished_at=_modified(paths.exit_file))


def _modified(path: Path) -> datetime | None:
    with suppress(FileNotFoundError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return None


async def end_rest(container_id: str) -> None:
    """Kill what is left in the container's cgroups: in the host's pid namespace the first process ends alone.

    Raises: Temporary.
    """
    for pid in cgroups.processes(container_id):
        process = open_process(pid, lambda proc: is_in_container(proc, container_id))
        if process is not None:
            process.send(signal.SIGKILL)
            try:
                await ended(process, KILL_TIMEOUT_S, f"a process of container {container_id} does not die")
            finally:
                process.close()


def is_in_container(proc: Path, container_id: str) -> bool:
    """Whether `/proc/<pid>` is a process of the container."""
    return cgroups.in_container((proc / "cgroup").read_text(), container_id)
