"""A lab made for being hurt: its swarmd takes failpoints and a false clock, one host has a small disk.

In: a lab's name. Out: its hosts, and how to make them a cluster. Invariant: what was mounted for it is
unmounted before the lab goes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.base.errors import SwarmError
from swarm.lab import programs
from swarm.lab.host import home
from swarm.lab.lab import Lab
from tests.integration.cluster import Cluster

ENVIRONMENT = "/run/chaos.env"
"""For every start of swarmd while it is there."""
FAILPOINTS = "/run/failpoints"
"""For the next start only."""
FAKE_CLOCK = "/run/clock"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
SMALL_DISK = "320m"
"""etcd alone takes 128 MB for its log before it has written anything."""

_START = (
    f"if test -f {ENVIRONMENT}; then set -a; . {ENVIRONMENT}; set +a; fi;"
    f" if test -f {FAILPOINTS}; then SWARM_FAILPOINTS=$(cat {FAILPOINTS}); export SWARM_FAILPOINTS;"
    f" rm {FAILPOINTS}; fi; exec {sys.executable} -m swarm.cli.swarmd"
)


def _daemon(quota: str) -> tuple[str, ...]:
    return ("sh", "-c", f"{_START} --etcd-quota {quota}" if quota else _START)


@contextmanager
def chaos_lab(name: str, hosts: int = 3, small: str = "", quota: str = "") -> Iterator[Lab]:
    """The lab, up, no cluster yet. `small` names the host with a small disk; `quota` is the stores'."""
    with Lab(name) as lab:
        lab.up(hosts=hosts, daemon=_daemon(quota))
        if not small:
            yield lab
            return
        disk = str(home(name, small) / "disk")
        lab.kill(small)
        programs.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=700", "chaos", disk])
        try:
            lab.start(small)
            yield lab
        finally:
            if any(host.name == small and host.state == "running" for host in lab.ls()):
                lab.kill(small)
            programs.run(["umount", "--lazy", disk])


def found(cluster: Cluster, managers: int) -> None:
    """The first hosts as managers, one after the other, the rest as workers."""
    first, *others = cluster.hosts
    cluster.swarm(first, "init", "--advertise-addr", cluster.lab.address(first))
    address = f"{cluster.lab.address(first)}:2377"
    for number, host in enumerate(others, start=2):
        role = "manager" if number <= managers else "worker"
        token = cluster.swarm(first, "join-token", "-q", role).strip()
        cluster.swarm(host, "join", "--token", token, address, timeout=60.0)
    wait_settled(cluster, managers)


def wait_settled(cluster: Cluster, managers: int, timeout_s: float = 60.0) -> None:
    """Until every node is ready and every manager serves and is reachable, as each of them sees it."""

    def settled() -> bool:
        for host in cluster.hosts[:managers]:
            nodes = cluster.get("/nodes", host)
            serving = [n for n in nodes if (n.get("ManagerStatus") or {}).get("Reachability") == "reachable"]
            if len(serving) != managers or len(nodes) != len(cluster.hosts):
                return False
            if any(n["Status"]["State"] != "ready" for n in nodes):
                return False
        return True

    cluster.wait_until(settled, "all nodes are ready, all managers reachable", timeout_s)


def running_containers(cluster: Cluster) -> dict[str, list[str]]:
    """The task of every container that runs, by host, as the processes say and not swarmd."""
    found: dict[str, list[str]] = {}
    for status in cluster.lab.ls():
        if status.state != "running":
            continue
        listed = cluster.run(status.name, "pgrep", "-a", "-x", "conmon").stdout
        words = [line.split() for line in listed.splitlines()]
        found[status.name] = [w[w.index("-c") + 1] for w in words if "-c" in w]
    return found


def restart_daemon(cluster: Cluster, host: str) -> None:
    """kill -9 of swarmd; the host starts it again, with what lies in ENVIRONMENT and FAILPOINTS."""
    try:
        cluster.kill_daemon(host)
    except (AssertionError, ValueError, SwarmError):
        return  # it is down already, and comes by itself


@contextmanager
def clock(cluster: Cluster, host: str) -> Iterator[Callable[[str], None]]:
    """Calling it moves the wall clock of the host's swarmd by so many seconds, at once and while it runs."""

    def jump(seconds: str) -> None:
        # By a rename: the clock must never be read from half a file.
        script = f"echo '{seconds}' > {FAKE_CLOCK}.new && mv {FAKE_CLOCK}.new {FAKE_CLOCK}"
        cluster.output(host, "sh", "-c", script)

    jump("+0")
    lines = f"LD_PRELOAD={FAKETIME}\nFAKETIME_TIMESTAMP_FILE={FAKE_CLOCK}\nFAKETIME_NO_CACHE=1\n"
    done = cluster.lab.exec(host, ["tee", ENVIRONMENT], feed=f"{lines}FAKETIME_DONT_FAKE_MONOTONIC=1\n")
    assert done.returncode == 0, done.stderr
    restart_daemon(cluster, host)
    try:
        yield jump
    finally:
        cluster.run(host, "rm", "-f", ENVIRONMENT, FAKE_CLOCK)
        restart_daemon(cluster, host)


def keep_logs(lab: Lab, directory: Path) -> None:
    """What every host's swarmd has said, into files of their names."""
    for status in lab.ls():
        (directory / f"{status.name}.log").write_text(lab.log(status.name))
