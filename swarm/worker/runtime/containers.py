"""Containers of this host: the facade that the agent drives.

In: `ContainerConfig`s and ids. Out: running containers, their exit statuses, and what was found after a
restart. Invariants: a container id exists once; containers and their supervisors (conmon) outlive this
process; an exit status is read from conmon's file, so it is the true one also when nobody watched; a
container whose supervisor died is killed, since nobody would keep its log and status; nothing is polled.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from swarm.base.clock import Clock
from swarm.base.errors import AlreadyExists, FailedPrecondition, Fatal, NotFound, SwarmError, Temporary
from swarm.base.failpoint import failpoint
from swarm.base.ids import is_id, new_id
from swarm.base.log import get_logger
from swarm.worker.runtime import cgroups
from swarm.worker.runtime.bundle import BundlePaths, Bundles
from swarm.worker.runtime.config import ContainerConfig
from swarm.worker.runtime.conmon import Conmon
from swarm.worker.runtime.crun import OciRuntime
from swarm.worker.runtime.endings import (
    KILL_TIMEOUT_S,
    end_conmon,
    end_rest,
    ended,
    exit_status,
    is_in_container,
)
from swarm.worker.runtime.exec import ExecProcess, Launch, start
from swarm.worker.runtime.exec_spec import ExecConfig, check_exec
from swarm.worker.runtime.host import RuntimeChoice, detect_facts
from swarm.worker.runtime.pidfd import Process, first_end, open_process
from swarm.worker.runtime.status import Adopted, ContainerState, ExitStatus
from swarm.worker.volumes import VolumeStore

CLEANUP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Pair:
    """A container's first process and its conmon; None for one that has ended."""

    container: Process | None
    conmon: Process | None

    def close(self) -> None:
        for process in (self.container, self.conmon):
            if process is not None:
                process.close()


class Containers:
    """All containers of one swarmd. Calls for one id come one at a time, except `wait`."""

    def __init__(
        self, *, state_dir: Path, run_dir: Path, choice: RuntimeChoice, volumes: VolumeStore, clock: Clock
    ) -> None:
        self._bundles = Bundles(state_dir=state_dir, run_dir=run_dir, volumes=volumes, host=detect_facts())
        self._bundles.make_directories()
        self._runtime = OciRuntime(choice.program, run_dir / choice.name)
        self._conmon = Conmon(choice.conmon, self._runtime)
        self._clock = clock
        self._pairs: dict[str, _Pair] = {}
        # Creating is work for the processor: more at once only makes each slower.
        self._slots = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._log = get_logger("containers")

    @property
    def directory(self) -> Path:
        """Where the bundles lie, for the log rotator."""
        return self._bundles.containers_dir

    def log_path(self, container_id: str) -> Path:
        return self._bundles.paths(container_id).log

    def pid(self, container_id: str) -> int | None:
        """The pid of the container's first process while it lives."""
        process = self._pair(container_id).container
        return None if process is None or process.has_ended else process.pid

    def is_alive(self, container_id: str) -> bool:
        return self.pid(container_id) is not None

    def has_log_ended(self, container_id: str) -> bool:
        """Nobody writes the container's log any more: its conmon has ended, or there is none."""
        conmon = self._pair(container_id).conmon
        return conmon is None or conmon.has_ended

    def stats(self, container_id: str) -> cgroups.Stats:
        """What the container uses now.

        Raises:
            NotFound: it does not run.
        """
        if not self.is_alive(container_id):
            raise NotFound("container", container_id)
        return cgroups.read_stats(container_id)

    async def create(self, config: ContainerConfig) -> None:
        """Create the container, not started; one that lives already is left as it is.

        Raises:
            Fatal: it cannot be created as asked (`exit_code` 127 or 126 when the command is the reason).
            AlreadyExists: it ran and ended.
        """
        if not is_id(config.id):
            raise Fatal(f"invalid container id {config.id!r}")
        paths = self._bundles.paths(config.id)
        if _created_mark(paths).exists():
            if self.is_alive(config.id):
                return
            raise AlreadyExists(f"container {config.id} already exists and has ended")
        if paths.bundle.exists() or paths.run.exists():
            await self.remove(config.id)
        preparing = asyncio.ensure_future(asyncio.to_thread(self._bundles.prepare, config))
        try:
            await asyncio.shield(preparing)
            async with self._slots:
                failpoint("container.bundle.made")
                await self._conmon.create(config, paths)
                failpoint("container.conmon.made")
                _created_mark(paths).touch()
            self._bundles.keep_filter(config, self._runtime.compiled_filter(config.id))
        except BaseException:
            # A thread goes on when its caller is cancelled: it would mount into what is being taken away.
            await asyncio.wait({preparing})
            await self._undo(config.id)
            raise
        self._pair(config.id)

    async def start(self, container_id: str) -> None:
        """Let the created container run; one that runs is left alone.

        Raises:
            Fatal: its command cannot be executed.
        """
        paths = self._paths(container_id)
        marker = _started_mark(paths)
        if marker.exists() and await self._runtime.state(container_id) == ContainerState.RUNNING:
            return
        marker.touch()
        failpoint("container.start.marked")
        async with self._slots:
            await self._runtime.start(container_id, "command")

    @asynccontextmanager
    async def exec(self, container_id: str, config: ExecConfig) -> AsyncIterator[ExecProcess]:
        """Run a program in a running container; it is gone when the context ends.

        Raises:
            NotFound, FailedPrecondition: there is no such container, or it does not run.
            InvalidArgument, Fatal: it cannot be run as asked (`exit_code` as in a shell).
        """
        check_exec(config)
        paths = self._paths(container_id)
        if not self.is_alive(container_id) or not _started_mark(paths).exists():
            raise FailedPrecondition(f"container {container_id} is not running")
        launch = Launch(
            runtime=self._runtime,
            container_id=container_id,
            process=await asyncio.to_thread(self._bundles.exec_process, container_id, config),
            folder=paths.run / f"exec.{new_id()}",
            stdin=config.stdin,
        )
        program = await start(launch)
        try:
            yield program
        finally:
            await program.close()

    async def wait(self, container_id: str) -> ExitStatus:
        """How the container ended, when it has.

        Raises:
            NotFound: there is no such container.
        """
        paths = self._paths(container_id)
        pair = self._pair(container_id)
        living = [p for p in (pair.container, pair.conmon) if p is not None]
        if len(living) == 2:
            await first_end(*living)
        await self._settle(pair, paths)
        return exit_status(container_id, paths)

    def signal(self, container_id: str, number: int) -> None:
        """Signal the container's first process.

        Raises:
            NotFound: it does not run.
        """
        process = self._pair(container_id).container
        if process is None or process.has_ended:
            raise NotFound("container", container_id)
        process.send(number)

    async def stop(self, container_id: str, number: int, grace: timedelta) -> ExitStatus:
        """Signal `number`, after `grace` SIGKILL; returns how the container ended. Ended before is fine."""
        # One that never ran cannot react: its first process is still the runtime's, deaf to all but SIGKILL.
        kind = number if _started_mark(self._paths(container_id)).exists() else signal.SIGKILL
        with suppress(NotFound):
            self.signal(container_id, kind)
        try:
            async with asyncio.timeout(grace.total_seconds()):
                return await self.wait(container_id)
        except TimeoutError:
            with suppress(NotFound):
                self.signal(container_id, signal.SIGKILL)
        return await self.wait(container_id)

    async def take_back(self, container_id: str) -> None:
        """Forget the secrets and configs of a container that has ended. Raises: OSError."""
        await asyncio.to_thread(self._bundles.take_back, container_id)

    async def remove(self, container_id: str) -> None:
        """Take away the container and all it left, killing it if it lives. Missing is fine.

        Raises:
            Temporary: a process does not die, or a mount is held.
        """
        pair = self._pair(container_id)
        if pair.container is not None:
            pair.container.send(signal.SIGKILL)
            await ended(pair.container, KILL_TIMEOUT_S, f"container {container_id} does not die")
        if pair.conmon is not None:
            await end_conmon(pair.conmon)
        await end_rest(container_id)
        await self._runtime.delete(container_id)
        cgroups.remove_cgroups(container_id)
        try:
            await asyncio.to_thread(self._bundles.remove, container_id)
        except OSError as error:
            raise Temporary(f"cannot remove container {container_id}: {error}") from error
        self.let_go(container_id)

    async def adopt(self, known: Collection[str]) -> list[Adopted]:
        """Take over what an earlier swarmd left: the containers of `known` ids; all others are removed.

        A container that was not wholly created is removed too: its task creates it again.
        """
        for container_id, pid in self._strays().items():
            if not self._bundles.paths(container_id).conmon_pid.exists():
                self._log.warning("container.stray_supervisor", container_id=container_id, pid=pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        adopting: list[asyncio.Task[Adopted]] = []
        async with asyncio.TaskGroup() as group:
            for container_id in sorted(self._bundles.ids()):
                whole = _created_mark(self._bundles.paths(container_id)).exists()
                if container_id in known and whole:
                    adopting.append(group.create_task(self._adopt_one(container_id)))
                else:
                    group.create_task(self._remove_leftover(container_id))
        return [task.result() for task in adopting]

    async def _remove_leftover(self, container_id: str) -> None:
        async with self._slots:
            try:
                await self.remove(container_id)
            except SwarmError as error:
                self._log.warning("container.leftover", container_id=container_id, error=str(error))

    def close(self) -> None:
        """Let go of the descriptors; the containers run on."""
        for container_id in list(self._pairs):
            self.let_go(container_id)

    def let_go(self, container_id: str) -> None:
        """Close the descriptors of a container on which nobody waits; they are opened again when needed."""
        pair = self._pairs.pop(container_id, None)
        if pair is not None:
            pair.close()

    async def _adopt_one(self, container_id: str) -> Adopted:
        pid = self.pid(container_id)
        if pid is None:
            status = await self.wait(container_id)
            return Adopted(id=container_id, state=ContainerState.EXITED, exit_status=status)
        async with self._slots:
            created = await self._runtime.state(container_id) == ContainerState.CREATED
        state = ContainerState.CREATED if created else ContainerState.RUNNING
        if created:
            _started_mark(self._paths(container_id)).unlink(missing_ok=True)
        return Adopted(id=container_id, state=state, pid=pid)

    async def _settle(self, pair: _Pair, paths: BundlePaths) -> None:
        """Make both processes be gone, so that whatever status there is has been written."""
        container, conmon = pair.container, pair.conmon
        conmon_gone = conmon is None or conmon.has_ended
        if container is not None and not container.has_ended and conmon_gone and not paths.exit_file.exists():
            self._log.warning("container.supervisor_lost", container_id=paths.bundle.name, pid=container.pid)
            container.send(signal.SIGKILL)
            await ended(container, KILL_TIMEOUT_S, f"container {paths.bundle.name} does not die")
        if conmon is not None and not conmon_gone:
            await end_conmon(conmon)
        await end_rest(paths.bundle.name)

    async def _undo(self, container_id: str) -> None:
        """After a failed or cancelled create: nothing of it stays, or the next `adopt` finds it."""
        pid = self._strays().get(container_id)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                await self.remove(container_id)
        except (SwarmError, TimeoutError) as error:
            self._log.warning("container.leftover", container_id=container_id, error=str(error))

    def _paths(self, container_id: str) -> BundlePaths:
        paths = self._bundles.paths(container_id)
        if not _created_mark(paths).exists():
            raise NotFound("container", container_id)
        return paths

    def _pair(self, container_id: str) -> _Pair:
        """The container's processes, found by its pid files the first time."""
        pair = self._pairs.get(container_id)
        if pair is None:
            paths = self._bundles.paths(container_id)
            pair = _Pair(
                container=_open(paths.pid, lambda proc: is_in_container(proc, container_id)),
                conmon=_open(
                    paths.conmon_pid, lambda proc: container_id in _supervised_by(proc, paths.exits)
                ),
            )
            if _created_mark(paths).exists():
                self._pairs[container_id] = pair
        return pair

    def _strays(self) -> dict[str, int]:
        """Every conmon that works for this swarmd, by the container's id."""
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    found.update(
                        dict.fromkeys(_supervised_by(entry, self._bundles.exits_dir), int(entry.name))
                    )
        return found


_OWN = Path("/proc/self")
_PID_NAMESPACE = Path("ns/pid")


def _created_mark(paths: BundlePaths) -> Path:
    """On disk, so that a container lost with the power is told from one that never was."""
    return paths.bundle / "created"


def _started_mark(paths: BundlePaths) -> Path:
    return paths.run / "started"


def _open(pid_file: Path, is_ours: Callable[[Path], bool]) -> Process | None:
    with suppress(FileNotFoundError, ValueError):
        return open_process(int(pid_file.read_text()), is_ours)
    return None


def _supervised_by(proc: Path, exits_dir: Path) -> tuple[str, ...]:
    """The id of the container that the process `proc` supervises for us, if it is a conmon.

    In a PID namespace of its own lives another swarmd, with directories of the same names.
    """
    argv = (proc / "cmdline").read_bytes().decode(errors="replace").split("\0")
    if not argv[0].endswith("conmon") or str(exits_dir) not in argv or "-c" not in argv:
        return ()
    if (proc / _PID_NAMESPACE).readlink() != (_OWN / _PID_NAMESPACE).readlink():
        return ()
    return (argv[argv.index("-c") + 1],)
