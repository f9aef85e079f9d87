"""What goes wrong, on purpose: each fault is a context that undoes it at its end.

In: a cluster in a lab, a source of chance. Out: faults by name. Invariant: when a fault's block has ended,
however it ended, the host runs, is wired and writes as before; only what the fault broke for good (processes
that were killed) has to come back by itself.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

from swarm.base.errors import SwarmError
from swarm.lab import network, programs
from swarm.lab.host import environment, home
from tests.chaos import chaos_lab, wire
from tests.integration.cluster import Cluster

Fault = Callable[[], AbstractContextManager[None]]
_TABLE = "inet chaos"


@dataclass(frozen=True, slots=True)
class Named:
    """A fault and what it is called in the history."""

    name: str
    fault: Fault


class Nemesis:
    """The faults of one cluster. `small` is the host with the small disk, if there is one."""

    def __init__(self, cluster: Cluster, chance: random.Random, small: str = "") -> None:
        self._cluster = cluster
        self._chance = chance
        self._small = small

    def choose(self) -> Named:
        """One fault on hosts chosen by chance. It always draws as often, so that a seed says it all."""
        a, b = self._chance.sample(self._cluster.hosts, 2)
        share = self._chance.choice((10, 30))
        delay = self._chance.choice((0.3, 2.0))
        shift = self._chance.choice(("+1h", "-1h", "+20d"))
        faults = {
            f"kill -9 swarmd on {a}": lambda: self.kill_daemon(a),
            f"kill -9 etcd on {a}": lambda: self.kill_etcd(a),
            f"power cut of {a}": lambda: self.power_cut(a),
            f"stop {a}": lambda: self.stop(a, etcd=True),
            f"stop swarmd on {a}": lambda: self.stop(a, etcd=False),
            f"cut {a} off": lambda: self.isolate(a),
            f"cut {a} from {b}": lambda: self.cut(a, b),
            f"{a} does not hear {b}": lambda: self.deafen(a, b),
            f"{a} loses {share} % of what it is sent": lambda: self.lose(a, share),
            f"etcd on {a} syncs in {delay} s": lambda: self.slow_sync(a, delay),
            f"disk of {a} fails to sync": lambda: self.failing_sync(a),
            f"{a} is 100 ms away": lambda: self.late(a, 0.05, 0.02),
            f"{a} sends 1 Mbit/s": lambda: self.narrow(a, "1mbit"),
        }
        if self._small:
            faults[f"disk of {self._small} full"] = self.fill_disk
        if chaos_lab.FAKETIME.exists():
            faults[f"clock of {a} {shift}"] = lambda: self.shift_clock(a, shift)
        name = self._chance.choice(sorted(faults))
        return Named(name, faults[name])

    @contextmanager
    def kill_daemon(self, host: str) -> Iterator[None]:
        chaos_lab.restart_daemon(self._cluster, host)
        yield

    @contextmanager
    def kill_etcd(self, host: str) -> Iterator[None]:
        self._signal("KILL", host, self._etcd(host))
        yield

    @contextmanager
    def power_cut(self, host: str) -> Iterator[None]:
        self._cluster.lab.kill(host)
        try:
            yield
        finally:
            self._cluster.lab.start(host)

    @contextmanager
    def stop(self, host: str, *, etcd: bool) -> Iterator[None]:
        """SIGSTOP: what a virtual machine meets when its host has no time for it."""
        pids = self._pids(host, "-P", "1", "-f", "swarm.cli.swarmd") + (self._etcd(host) if etcd else [])
        self._signal("STOP", host, pids)
        try:
            yield
        finally:
            self._signal("CONT", host, pids)

    @contextmanager
    def isolate(self, host: str) -> Iterator[None]:
        others = [name for name in self._cluster.hosts if name != host]
        try:
            for other in others:
                self._cluster.lab.cut(host, other)
            yield
        finally:
            for other in others:
                self._cluster.lab.heal(host, other)

    @contextmanager
    def cut(self, a: str, b: str) -> Iterator[None]:
        try:
            self._cluster.lab.cut(a, b)
            yield
        finally:
            self._cluster.lab.heal(a, b)

    def deafen(self, host: str, peer: str) -> AbstractContextManager[None]:
        """One way: nothing from `peer` arrives at `host`."""
        return self._dropping(host, f"ip saddr {self._cluster.lab.address(peer)} drop;")

    def lose(self, host: str, percent: int) -> AbstractContextManager[None]:
        return self._dropping(host, f'iifname "eth0" numgen random mod 100 < {percent} drop;')

    @contextmanager
    def fill_disk(self) -> Iterator[None]:
        fill = home(self._cluster.lab.name, self._small) / "disk" / "fill"
        try:
            with fill.open("wb", buffering=0) as file:
                _write_until_full(file.fileno())
            yield
        finally:
            fill.unlink(missing_ok=True)

    def slow_sync(self, host: str, delay_s: float) -> AbstractContextManager[None]:
        """Every fdatasync of etcd takes longer."""
        return self._inject(host, f"delay_enter={int(delay_s * 1e6)}")

    def failing_sync(self, host: str) -> AbstractContextManager[None]:
        """Every fdatasync of the etcd that runs now fails, as on a disk that is dying."""
        return self._inject(host, "error=EIO")

    def lying_sync(self, host: str) -> AbstractContextManager[None]:
        """Every sync of etcd succeeds, and is not done: what a test of lost writes must notice."""
        return self._inject(host, "retval=0")

    @contextmanager
    def _inject(self, host: str, what: str) -> Iterator[None]:
        traced = self._etcd(host)
        if not traced:
            yield
            return
        argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", traced[0], "-e", "trace=fdatasync,fsync"]
        argv += ["-e", f"inject=fdatasync,fsync:{what}"]
        with subprocess.Popen(
            self._cluster.lab.entry(host, argv).command(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        ) as tracer:
            try:
                traced_by = f"grep -q 'TracerPid:.*[1-9]' /proc/{traced[0]}/status"
                self._cluster.wait_until(
                    lambda: (
                        self._cluster.run(
                            host, "sh", "-c", f"! test -e /proc/{traced[0]} || {traced_by}"
                        ).returncode
                        == 0
                    ),
                    "strace holds etcd",
                )
                yield
            finally:
                with suppress(SwarmError):  # it ended with its host
                    self._signal("TERM", host, self._pids(host, "-x", "strace"))
                try:
                    tracer.wait(10)
                except subprocess.TimeoutExpired:
                    tracer.kill()

    @contextmanager
    def late(self, host: str, delay_s: float, jitter_s: float) -> Iterator[None]:
        """What leaves the host or comes to it is so much longer on its way."""
        switch = network.switch_entry(self._cluster.lab.name)
        argv = [*switch, sys.executable, "-m", wire.__name__, host, f"{delay_s:g}", f"{jitter_s:g}"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as carrier:
            try:
                assert carrier.stdout is not None
                assert carrier.stdout.readline() == "ready\n"
                links = (f"link set {host} nomaster", f"link set {wire.tap_name(host)} master bridge up")
                programs.run([*switch, "ip", "-batch", "-"], feed="\n".join(links) + "\n")
                yield
            finally:
                carrier.terminate()
                carrier.wait(10)
                programs.run([*switch, "ip", "link", "set", host, "master", "bridge"])

    @contextmanager
    def narrow(self, host: str, rate: str) -> Iterator[None]:
        """The host sends no more than `rate`, in tc's words."""
        shape = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
        self._cluster.output(host, "tc", "qdisc", "replace", "dev", "eth0", *shape)
        try:
            yield
        finally:
            self._cluster.run(host, "tc", "qdisc", "delete", "dev", "eth0", "root")

    @contextmanager
    def shift_clock(self, host: str, shift: str) -> Iterator[None]:
        """swarmd's wall clock is wrong from a restart on, and right again after another one."""
        lines = f"LD_PRELOAD={chaos_lab.FAKETIME}\nFAKETIME={shift}\nFAKETIME_DONT_FAKE_MONOTONIC=1\n"
        try:
            self._feed(host, lines, "tee", chaos_lab.ENVIRONMENT)
            chaos_lab.restart_daemon(self._cluster, host)
            yield
        finally:
            self._cluster.run(host, "rm", "-f", chaos_lab.ENVIRONMENT)
            chaos_lab.restart_daemon(self._cluster, host)

    @contextmanager
    def _dropping(self, host: str, rule: str) -> Iterator[None]:
        chain = f"chain incoming {{ type filter hook prerouting priority raw; {rule} }}"
        try:
            self._feed(host, f"table {_TABLE} {{\n{chain}\n}}\n", "nft", "-f", "-")
            yield
        finally:
            self._feed(host, f"add table {_TABLE}\ndelete table {_TABLE}\n", "nft", "-f", "-")

    def _feed(self, host: str, text: str, *argv: str) -> None:
        done = self._cluster.lab.exec(host, argv, feed=text)
        assert done.returncode == 0, f"{argv} on {host}: {done.stderr}"

    def _etcd(self, host: str) -> list[str]:
        return self._pids(host, "-x", "etcd")

    def _pids(self, host: str, *arguments: str) -> list[str]:
        return self._cluster.run(host, "pgrep", *arguments).stdout.split()

    def _signal(self, name: str, host: str, pids: list[str]) -> None:
        if pids:
            self._cluster.run(host, "kill", f"-{name}", *pids)


def _write_until_full(descriptor: int) -> None:
    for size in (1 << 20, 1 << 12):
        try:
            while True:
                os.write(descriptor, bytes(size))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


@contextmanager
def torment(
    nemesis: Nemesis, note: Callable[[str], AbstractContextManager[None]], hold_s: float
) -> Iterator[str]:
    """One fault, chosen by chance, for `hold_s` and for as long as the block takes."""
    named = nemesis.choose()
    with note(named.name), named.fault():
        time.sleep(hold_s)
        yield named.name
