"""The etcd that a manager runs as its child: started, watched, restarted, and never doubled.

The child dies with its parent (PDEATHSIG set before exec by a tiny helper interpreter) and a lock on the data
directory, inherited by the child, keeps a second one out for as long as the first lives. Ports differ from
the distribution's etcd (2379, 2380): clients on 127.0.0.1:2382, peers on the advertised address, 2381.
Source: etcd's documentation of flags; version traps: docs/decisions/0001-raft-is-etcds.md.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from swarm.base.errors import FailedPrecondition, Unavailable
from swarm.base.log import get_logger
from swarm.model.defaults import ETCD_CLIENT_PORT, ETCD_PEER_PORT
from swarm.store.etcd import EtcdAddress, EtcdKV
from swarm.store.health import Health, StoreState, classify_exit, may_start, missing
from swarm.store.members import Members

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 10.0
BACKOFF_FIRST_S = 0.2
BACKOFF_LIMIT_S = 15.0
HOPELESS_RETRY_S = 60.0
"""For a member that a user has to repair; it is tried all the same, for the files may have been put back."""
DISK_LOOK_S = 1.0
LOG_LIMIT_BYTES = 16 * 1024 * 1024
LOG_TAIL_BYTES = 64 * 1024
DEFAULT_QUOTA_BYTES = 2 * 1024 * 1024 * 1024
REFUSED = ((3, 5, 0), (3, 5, 1), (3, 5, 2))
"""These lose or corrupt data under crashes (etcd#13766)."""
SUPPORTED_FROM = (3, 5, 0)

_EXEC = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]): sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel to kill the child when the parent dies, then becomes etcd."""

log = get_logger("etcd")


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdFiles:
    """PEM files of etcd's own CA, which no worker ever holds."""

    ca: Path
    cert: Path
    key: Path

    def address(self) -> EtcdAddress:
        """Where a client finds the child, with the certificate that both sides use."""
        return EtcdAddress(
            target=f"127.0.0.1:{ETCD_CLIENT_PORT}",
            ca_pem=self.ca.read_bytes(),
            cert_pem=self.cert.read_bytes(),
            key_pem=self.key.read_bytes(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    name: str
    """Member name: the node's id."""
    directory: Path
    peer_address: str
    files: EtcdFiles
    initial_cluster: str = ""
    """`name=url,…` of all members when joining ones that exist; empty starts a cluster of one."""
    force_new_cluster: bool = False
    """Start with this member's data as the only member."""
    store_mark: str = "swarm"
    """Of a new store (etcd's cluster token): members of stores with different ones do not hear each other."""
    has_begun: bool = False
    """It has had data: without any it is not started."""
    quota_bytes: int = DEFAULT_QUOTA_BYTES
    """Size of the database from which on etcd refuses writes."""


async def check_version() -> str:
    """The version of the etcd program found on PATH.

    Raises:
        FailedPrecondition: there is none, or its version must not be used.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            "etcd", "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise FailedPrecondition(
            "no etcd program on PATH: install it (Debian: apt-get install etcd-server) and try again"
        ) from None
    async with asyncio.timeout(START_TIMEOUT_S):
        output, _ = await process.communicate()
    return judge_version(output.decode(errors="replace"))


def judge_version(output: str) -> str:
    """The version in `etcd --version`'s output, if it may be used. Raises: FailedPrecondition."""
    found = re.search(r"etcd Version: ((\d+)\.(\d+)\.(\d+))", output)
    if found is None:
        raise FailedPrecondition("the etcd program on PATH does not tell its version")
    judge_numbers((int(found[2]), int(found[3]), int(found[4])))
    return found[1]


def judge_numbers(numbers: tuple[int, int, int]) -> None:
    """Raises: FailedPrecondition for a version that must not be used."""
    version = ".".join(map(str, numbers))
    if numbers in REFUSED:
        raise FailedPrecondition(f"etcd {version} can corrupt its data (etcd#13766): install 3.5.33 or later")
    if numbers < SUPPORTED_FROM:
        log.warning("etcd.old", version=version, advice="3.4 gets no more fixes; 3.5.33 or later is better")


def support_of(version: str) -> str:
    """One phrase on whether its makers still care for that version. Pure."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < SUPPORTED_FROM[:2]:
        return "tolerated: 3.4 gets no more fixes; 3.5.33 or later is better"
    return "supported"


class MemberRemoved(FailedPrecondition):
    """The others have taken this member out for good: its data is of no use any more."""


class EtcdProcess:
    """One etcd child, kept running. `run` restarts it with backoff until cancelled, then stops it."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._serving = asyncio.Event()
        self._pid: int | None = None
        self._problem: Health | None = None

    @property
    def pid(self) -> int | None:
        return self._pid

    @property
    def problem(self) -> Health | None:
        """Why the child does not run; None while it serves, and before it was first started."""
        return self._problem

    async def serving(self) -> None:
        """Wait until the member answers. Raises: Unavailable when it has not within the start timeout."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._serving.wait()
        except TimeoutError:
            why = self._problem.message if self._problem else f"its log is {self._settings.directory / 'log'}"
            raise Unavailable(f"etcd did not start: {why}") from None

    async def run(self) -> None:
        """Until cancelled. Raises: MemberRemoved."""
        backoff = BACKOFF_FIRST_S
        while True:
            if await self._run_once():
                backoff = BACKOFF_FIRST_S
            self._serving.clear()
            self._pid = None
            assert self._problem is not None, "the child has ended"
            if self._problem.state is StoreState.REMOVED:
                raise MemberRemoved(self._problem.message)
            hopeless = self._problem.state is StoreState.CORRUPT
            delay = max(backoff, HOPELESS_RETRY_S) if hopeless else backoff
            log.warning("etcd.exited", state=self._problem.state, reason=self._problem.message, retry_s=delay)
            await asyncio.sleep(delay)
            await _disk_has_room(self._problem, self._settings.directory)
            backoff = min(backoff * 2, BACKOFF_LIMIT_S)

    async def _run_once(self) -> bool:
        """Run the child until it ends and say why it did; returns whether it served meanwhile."""
        directory = self._settings.directory
        served, begun_at = False, 0
        if self._settings.has_begun and not (directory / "data" / "member").exists():
            self._problem = missing(str(directory))
            return served
        try:
            async with _locked(directory) as lock:
                begun_at = _begin_log(directory / "log")
                async with self._child(lock) as child:
                    served = await self._wait_serving(child)
                    await child.wait()
        except OSError as error:
            self._problem = classify_exit(str(error), str(directory), free_bytes(directory))
        else:
            output = _read_from(directory / "log", begun_at)
            self._problem = classify_exit(output, str(directory), free_bytes(directory))
        return served

    @asynccontextmanager
    async def _child(self, lock: int) -> AsyncIterator[asyncio.subprocess.Process]:
        directory = self._settings.directory
        with (directory / "log").open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", _EXEC, str(os.getpid()), *arguments(self._settings),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                pass_fds=(lock,),
            )  # fmt: skip
        self._pid = child.pid
        try:
            yield child
        finally:
            await _stop(child)

    async def _wait_serving(self, child: asyncio.subprocess.Process) -> bool:
        kv = EtcdKV(self._settings.files.address())
        try:
            while child.returncode is None:
                try:
                    await Members(kv.channel).status()
                except Unavailable:
                    await asyncio.sleep(0.05)
                else:
                    self._problem = None
                    self._serving.set()
                    return True
            return False
        finally:
            await kv.aclose()


def arguments(settings: EtcdSettings) -> list[str]:
    """The command line of a member. Nothing secret: keys are files."""
    files = settings.files
    client = f"https://127.0.0.1:{ETCD_CLIENT_PORT}"
    peer = f"https://{settings.peer_address}:{ETCD_PEER_PORT}"
    tls = ["cert-file", str(files.cert)], ["key-file", str(files.key)], ["trusted-ca-file", str(files.ca)]
    return [
        "etcd",
        f"--name={settings.name}",
        f"--data-dir={settings.directory / 'data'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={settings.initial_cluster or f'{settings.name}={peer}'}",
        f"--initial-cluster-state={'existing' if settings.initial_cluster else 'new'}",
        f"--initial-cluster-token={settings.store_mark}",
        *(["--force-new-cluster"] if settings.force_new_cluster else []),
        "--client-cert-auth",
        "--peer-client-cert-auth",
        *(f"--{prefix}{flag}={value}" for prefix in ("", "peer-") for flag, value in tls),
        "--pre-vote=true",
        "--enable-grpc-gateway=false",
        "--snapshot-count=10000",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=10m",
        f"--quota-backend-bytes={settings.quota_bytes}",
        "--logger=zap",
        "--log-level=warn",
    ]


async def _disk_has_room(problem: Health, directory: Path) -> None:
    """On a full disk a start can only fail, and each one may cost some more of it."""
    while not may_start(problem, free_bytes(directory)):  # noqa: ASYNC110 - nobody tells of free space
        await asyncio.sleep(DISK_LOOK_S)


def _begin_log(file: Path) -> int:
    """Where this start's part of the log begins; a long log is put aside first."""
    size = file.stat().st_size if file.exists() else 0
    if size <= LOG_LIMIT_BYTES:
        return size
    file.replace(file.with_name("log.1"))
    return 0


def _read_from(file: Path, offset: int) -> str:
    """The end of what was written after `offset`."""
    with file.open("rb") as stream:
        stream.seek(max(offset, file.stat().st_size - LOG_TAIL_BYTES))
        return stream.read().decode(errors="replace")


def free_bytes(directory: Path) -> int:
    """Space left on the disk that holds it."""
    try:
        found = os.statvfs(directory)
    except FileNotFoundError:  # before the first start
        found = os.statvfs("/")
    return found.f_bavail * found.f_frsize


@asynccontextmanager
async def _locked(directory: Path) -> AsyncIterator[int]:
    """Holds the lock on a data directory; waits for the child of a killed swarmd to be gone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _acquire(lock, directory)
        yield lock
    finally:
        os.close(lock)


async def _acquire(lock: int, directory: Path) -> None:
    try:
        async with asyncio.timeout(LOCK_TIMEOUT_S):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await asyncio.sleep(0.05)
                else:
                    return
    except TimeoutError:
        raise Unavailable(f"another etcd is running on {directory}: stop it first") from None


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
