"""One host of a lab: booting it, entering it, asking its daemon, cutting its power.

In: a lab's record and a host's name. Out: processes. Invariant: a host is running exactly while its first
process lives; the pid file carries that process's start time, so a pid that was given to another process
is not taken for it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swarm.base.clock import SystemClock
from swarm.base.errors import FailedPrecondition, SwarmError
from swarm.base.trees import remove_tree
from swarm.lab import cgroups, names, network, record
from swarm.lab.record import Record

SOCKET = "run/swarm/swarm.sock"
BOOT_DEADLINE_S = 20.0
POWER_OFF_DEADLINE_S = 15.0
_INIT = Path(__file__).with_name("init.py")
_POLL_S = 0.02
_LOG_TAIL_LINES = 15
# Set on the machine, these would lead a client inside a host to a daemon outside of it.
_NOT_INHERITED = ("DOCKER_CONTEXT", "SWARM_HOST")


def environment() -> dict[str, str]:
    """The machine's, with this installation's programs first on PATH, `docker` led to the host's swarmd."""
    env = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    machine_path = env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env["PATH"] = f"{Path(sys.executable).parent}:{machine_path}"
    env["DOCKER_HOST"] = f"unix:///{SOCKET}"
    return env


def home(lab: str, host: str) -> Path:
    return record.disk_dir(lab) / host


def log_path(lab: str, host: str) -> Path:
    return home(lab, host) / "swarmd.log"


def log_tail(lab: str, host: str) -> str:
    try:
        lines = log_path(lab, host).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return (
        "\n".join(f"  {host}: {line}" for line in lines[-_LOG_TAIL_LINES:]) or f"  {host}: (the log is empty)"
    )


# --- the first process ---------------------------------------------------------------------------------


def _pid_file(lab: str, host: str) -> Path:
    return record.run_dir(lab) / f"{host}.pid"


def _start_time(pid: int) -> str | None:
    """When `pid` started, in ticks since the machine's boot; None if it is not alive."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def find_pid(lab: str, host: str) -> int | None:
    """The host's first process, or None while the host is off."""
    try:
        pid, started = _pid_file(lab, host).read_text().split()
    except FileNotFoundError:
        return None
    return int(pid) if _start_time(int(pid)) == started else None


def running_pid(lab: str, host: str) -> int:
    """Raises: FailedPrecondition: the host is off."""
    pid = find_pid(lab, host)
    if pid is None:
        raise FailedPrecondition(f"host {host} is off: run `swarm lab start --name {lab} {host}`")
    return pid


# --- booting -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Booting:
    """A host whose first process was started but has not said anything yet."""

    lab: Record
    host: str
    process: subprocess.Popen[str]


def begin_boot(lab: Record, host: str) -> Booting:
    """Start the host's first process. Several hosts can be begun before the first is finished.

    The caller closes `process`; the host's first process ends with it unless its boot was finished.
    """
    cgroups.make(lab.name, host)
    disk = home(lab.name, host) / "disk"
    disk.mkdir(mode=0o700, parents=True, exist_ok=True)
    Path("/var/lib/swarm").mkdir(mode=0o700, parents=True, exist_ok=True)  # what the disk is mounted over
    hierarchies = [f"{h.mount}:{h.options}:{h.group(lab.name, host)}" for h in cgroups.hierarchies()]
    arguments = [host, str(disk), str(record.run_dir(lab.name) / "hosts"), *hierarchies, "--", *lab.daemon]
    with log_path(lab.name, host).open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_INIT), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(),
        )
    return Booting(lab=lab, host=host, process=process)


def finish_boot(booting: Booting) -> None:
    """Plug the host in, let its first process go on, and wait until it has mounted everything.

    Raises:
        SwarmError: it did not come up; the message ends with the tail of its log.
    """
    lab, host, process = booting.lab, booting.host, booting.process
    assert process.stdin is not None
    assert process.stdout is not None
    line = _read_line(process.stdout).strip()
    if not line.isdigit():
        raise SwarmError(f"host {host} did not boot:\n{log_tail(lab.name, host)}")
    pid = int(line)
    record.write_atomically(_pid_file(lab.name, host), f"{pid} {_start_time(pid)}")
    network.wire(lab.name, host, pid, lab.subnet)
    apply_cuts(lab, host)
    process.stdin.write("go\n")
    process.stdin.flush()
    if _read_line(process.stdout) != "ready\n":
        raise SwarmError(f"host {host} did not boot:\n{log_tail(lab.name, host)}")


def _read_line(stream: IO[str]) -> str:
    """The next line, or nothing when none comes in time. The peer waits for an answer to each line."""
    readable, _, _ = select.select([stream], [], [], BOOT_DEADLINE_S)
    return stream.readline() if readable else ""


def apply_cuts(lab: Record, host: str) -> None:
    peers = [names.host_address(lab.subnet, peer) for peer in lab.peers_cut_from(host)]
    pid = find_pid(lab.name, host)
    if pid is not None:
        network.set_cuts(pid, peers)


# --- the daemon ----------------------------------------------------------------------------------------


def socket_path(lab: str, host: str) -> Path:
    """The daemon's API socket, as a process of the machine reaches it."""
    return Path(f"/proc/{running_pid(lab, host)}/root/{SOCKET}")


def wait_for_daemon(lab: str, host: str, timeout_s: float) -> None:
    """Wait until the daemon answers `GET /_ping`.

    Raises:
        SwarmError: it did not in time; the message ends with the tail of its log.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_s
    while not _answers(socket_path(lab, host)):
        if clock.monotonic() > deadline:
            raise SwarmError(
                f"swarmd on {host} does not answer within {timeout_s:.0f} s:\n{log_tail(lab, host)}"
            )
        time.sleep(_POLL_S)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2.0)
        try:
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
            return client.recv(64).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False


# --- entering ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How to run a program as one of a host's processes: join `groups`, then become `argv`."""

    groups: list[str]
    argv: list[str]

    def command(self) -> list[str]:
        """The same as one command, for a process that is not to become the program itself."""
        script = Path(__file__).with_name("enter.py")
        return [sys.executable, "-I", "-S", str(script), *self.groups, "--", *self.argv]


def entry(lab: str, host: str, argv: Sequence[str]) -> Entry:
    """The program starts in the caller's directory: a host shares the machine's files but for its state."""
    namespaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup"]
    inside = [
        "nsenter",
        f"--target={running_pid(lab, host)}",
        *namespaces,
        "--",
        "env",
        f"--chdir={_directory()}",
    ]
    return Entry(groups=cgroups.entry_groups(lab, host), argv=[*inside, *argv])


def _directory() -> str:
    here = os.getcwd()
    private = ("/run", "/proc", "/sys", "/dev", "/var/lib/swarm")
    return "/" if any(here == top or here.startswith(f"{top}/") for top in private) else here


# --- the end -------------------------------------------------------------------------------------------


def power_off(lab: str, host: str) -> None:
    """End every process of the host at once, and wait until the kernel let go of them. Fine if it is off."""
    pid = find_pid(lab, host)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cgroups.clear(lab, [host])
    # The first process leaves its cgroup before it has waited for the last of its namespace.
    deadline = SystemClock().monotonic() + POWER_OFF_DEADLINE_S
    while find_pid(lab, host) is not None:
        if SystemClock().monotonic() > deadline:
            raise SwarmError(f"host {host} of lab {lab} does not end: run `swarm lab kill` again")
        time.sleep(_POLL_S)


def remove(lab: str) -> None:
    """End all that a lab runs and remove all it left but its run directory, knowing its name only."""
    cgroups.clear(lab)
    network.remove(lab)
    remove_tree(record.disk_dir(lab))
