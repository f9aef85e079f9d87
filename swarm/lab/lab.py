"""A lab: several hosts on one machine, each with its own disk, address, name and swarmd.

In: a lab's name. Out: hosts that can be entered, cut off, switched off and on, and removed without a
trace. Invariant: whatever moment a command is killed at, `down` removes everything, since each thing is
named after the lab and the record is written before the first is made.

    with Lab("test") as lab:
        lab.up(hosts=3)
        lab.exec("h1", ["swarm", "init"])
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

from swarm.base.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from swarm.lab import host, names, network, programs, record
from swarm.lab.record import Record

SWARMD = (sys.executable, "-m", "swarm.cli.swarmd")
DAEMON_DEADLINE_S = 30.0
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_SAVED_IP_FORWARD = record.RUN_DIR / "ip_forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    lab: str
    name: str
    address: IPv4Address
    state: str  # "running" or "off"


class Lab:
    """The lab called `name`, whether it is up or not. Used as a context manager it is down at the end."""

    def __init__(self, name: str = names.DEFAULT_NAME) -> None:
        self.name = names.checked_name(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # --- the whole lab ---------------------------------------------------------------------------------

    def up(
        self,
        hosts: int = 3,
        subnet: str | None = None,
        daemon: Sequence[str] = SWARMD,
        timeout_s: float = DAEMON_DEADLINE_S,
    ) -> Self:
        """Boot `hosts` hosts and wait until `daemon` answers on each. An empty `daemon`: hosts without one.

        Raises:
            AlreadyExists: the lab is up.
            SwarmError: something failed; nothing of the lab is left then.
        """
        programs.require_machine()
        self._refuse_second()
        with self._locked():
            self._refuse_second()
            try:
                lab = self._claim(names.host_names(hosts), subnet, tuple(daemon))
                network.make_switch(self.name, lab.subnet)
                self._boot(lab, lab.hosts, timeout_s)
            except BaseException:
                self._remove()
                raise
        return self

    def down(self) -> bool:
        """Remove the lab and all of it, also what a killed command left. False if there was no such lab."""
        programs.require_machine()
        known = record.run_dir(self.name).exists() or record.disk_dir(self.name).exists()
        with self._locked():
            self._remove()
        return known

    def ls(self) -> tuple[HostStatus, ...]:
        return _statuses(self._host())

    # --- one host --------------------------------------------------------------------------------------

    def exec(
        self, name: str, argv: Sequence[str], *, timeout: float = 60.0, feed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` on a host, fed with `feed`. Its exit status is in the answer and raises nothing.

        Raises:
            subprocess.TimeoutExpired: after `timeout` seconds; the program has been killed.
        """
        command = self.entry(name, argv).command()
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=host.environment(),
            process_group=0,
        ) as process:
            try:
                out, err = process.communicate(feed, timeout)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def entry(self, name: str, argv: Sequence[str]) -> host.Entry:
        """How to run `argv` on a host: for who starts the program himself (asyncio, a terminal)."""
        self._host(name)
        return host.entry(self.name, name, argv)

    def kill(self, name: str) -> None:
        """Cut the host's power: every process dies at once. The disk stays."""
        with self._changing(name):
            # First of all, so that nothing of its end is heard outside: no connection is closed or reset.
            network.unplug(self.name, name)
            host.power_off(self.name, name)

    def start(self, name: str, timeout_s: float = DAEMON_DEADLINE_S) -> None:
        """Boot a host that is off: with its disk, with an empty /run, still cut from whom it was cut from."""
        with self._changing(name) as lab:
            if host.find_pid(self.name, name) is not None:
                raise FailedPrecondition(f"host {name} of lab {self.name} is running already")
            host.power_off(self.name, name)  # what a command that was killed while booting it left
            network.unplug(self.name, name)
            self._boot(lab, (name,), timeout_s)

    def address(self, name: str) -> str:
        return str(names.host_address(self._host(name).subnet, name))

    def ipv6_address(self, name: str) -> str:
        subnet = self._host(name).subnet
        return str(names.ipv6_interface(names.host_address(subnet, name), subnet).ip)

    def socket_path(self, name: str) -> Path:
        """The API socket of the host's swarmd, as this machine reaches it. Another one after each boot."""
        self._host(name)
        return host.socket_path(self.name, name)

    def log(self, name: str) -> str:
        """What the host's swarmd has logged in all its lives."""
        self._host(name)
        return host.log_path(self.name, name).read_text(errors="replace")

    # --- partitions ------------------------------------------------------------------------------------

    def cut(self, a: str, b: str) -> None:
        """Drop everything between two hosts, both ways, until it is healed."""
        if a == b:
            raise InvalidArgument(f"cannot cut {a} from itself: name two hosts")
        with self._changing(a, b) as lab:
            self._set_cuts(lab.with_cut(a, b))

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo the cut between two hosts, or all cuts."""
        pair = (a, b) if a is not None and b is not None else None
        with self._changing(*(pair or ())) as lab:
            self._set_cuts(lab.without_cuts(pair))

    def _set_cuts(self, lab: Record) -> None:
        record.save(lab)
        for name in lab.hosts:
            host.apply_cuts(lab, name)

    # --- inside ----------------------------------------------------------------------------------------

    def _host(self, *wanted: str) -> Record:
        """Raises: NotFound: there is no such lab, or no such host in it."""
        programs.require_root()
        lab = record.load(self.name)
        for name in wanted:
            if name not in lab.hosts:
                raise NotFound("host", f"{name} of lab {self.name} (it has {', '.join(lab.hosts)})")
        return lab

    def _locked(self) -> AbstractContextManager[None]:
        return record.locked(record.run_dir(self.name) / "lock", what=f"lab {self.name}")

    @contextmanager
    def _changing(self, *wanted: str) -> Iterator[Record]:
        """The record, while nobody else changes the lab."""
        self._host(*wanted)
        with self._locked():
            yield self._host(*wanted)

    def _refuse_second(self) -> None:
        if record.find(self.name) is not None:
            raise AlreadyExists(
                f"lab {self.name} is up already: `swarm lab down --name {self.name}` removes it,"
                " --name makes another one beside it"
            )

    def _claim(self, hosts: tuple[str, ...], subnet: str | None, daemon: tuple[str, ...]) -> Record:
        """Take the name and a subnet. The record exists from here on, before anything else does."""
        wanted = None if subnet is None else names.parse_subnet(subnet)
        with _all_labs_locked():
            host.remove(self.name)  # a disk from before the machine's last start, for example
            taken = [*network.taken_networks(), *(lab.subnet for lab in record.list_all())]
            chosen = names.choose_subnet(wanted, taken, len(hosts))
            lab = Record(name=self.name, subnet=chosen, hosts=hosts, daemon=daemon)
            record.save(lab)
            if not _SAVED_IP_FORWARD.exists():
                record.write_atomically(_SAVED_IP_FORWARD, _IP_FORWARD.read_text())
            _IP_FORWARD.write_text("1")
        known = "".join(f"{names.host_address(chosen, name)} {name}\n" for name in hosts)
        machine = Path("/etc/hosts").read_text()
        record.write_atomically(record.run_dir(self.name) / "hosts", f"{machine.rstrip()}\n{known}")
        return lab

    def _boot(self, lab: Record, wanted: Sequence[str], timeout_s: float) -> None:
        with ExitStack() as stack:
            booting = []
            for name in wanted:
                booting.append(host.begin_boot(lab, name))
                stack.enter_context(booting[-1].process)
            for one in booting:
                host.finish_boot(one)
        if lab.daemon:
            for name in wanted:
                host.wait_for_daemon(self.name, name, timeout_s)

    def _remove(self) -> None:
        host.remove(self.name)
        shutil.rmtree(record.run_dir(self.name))
        with _all_labs_locked():
            if any(path.is_dir() for path in record.RUN_DIR.iterdir()):
                return
            if _SAVED_IP_FORWARD.exists():
                _IP_FORWARD.write_text(_SAVED_IP_FORWARD.read_text())
                _SAVED_IP_FORWARD.unlink()
            record.LOCK.unlink()
            for directory in (record.DISK_DIR, record.RUN_DIR):
                with suppress(OSError):  # never made, or somebody begins a lab in this moment
                    directory.rmdir()


def _all_labs_locked() -> AbstractContextManager[None]:
    return record.locked(record.LOCK, what="this machine's list of labs")


def list_hosts() -> tuple[HostStatus, ...]:
    """The hosts of every lab on this machine. Those of a lab that goes meanwhile are off."""
    programs.require_root()
    return tuple(status for lab in record.list_all() for status in _statuses(lab))


def _statuses(lab: Record) -> tuple[HostStatus, ...]:
    return tuple(
        HostStatus(
            lab=lab.name,
            name=name,
            address=names.host_address(lab.subnet, name),
            state="off" if host.find_pid(lab.name, name) is None else "running",
        )
        for name in lab.hosts
    )
