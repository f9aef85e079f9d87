"""`python -m bench.failover`: how long a swarm of three managers is without a leader, and without writes.

Each round cuts the power of the leader's host, measures until another manager leads and until a write is
acknowledged there, and boots the host again. Prints each round, then median and worst.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from swarm.api.client import Client
from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.lab.lab import Lab

HOSTS = ("h1", "h2", "h3")
POLL_S = 0.02
SETTLE_S = 60.0
CLOCK = SystemClock()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--name", default="failover", help="the lab's name (default: %(default)s)")
    options = parser.parse_args(argv)
    leads: list[float] = []
    writes: list[float] = []
    with Lab(options.name) as lab:
        _found(lab.up(hosts=len(HOSTS)))
        for number in range(options.rounds):
            led, written = _round(lab)
            print(f"round {number + 1}: leader after {led:.2f} s, write after {written:.2f} s", flush=True)
            leads.append(led)
            writes.append(written)
    for what, found in (("leader", leads), ("write", writes)):
        print(f"{what}: median {statistics.median(found):.2f} s, worst {max(found):.2f} s")
    return 0


def _found(lab: Lab) -> None:
    _run(lab, "h1", "init", "--advertise-addr", lab.address("h1"))
    token = _run(lab, "h1", "join-token", "-q", "manager").strip()
    for host in HOSTS[1:]:
        _run(lab, host, "join", "--token", token, f"{lab.address('h1')}:2377")


def _run(lab: Lab, host: str, *arguments: str) -> str:
    done = lab.exec(host, ["swarm", *arguments])
    if done.returncode:
        raise SwarmError(f"swarm {arguments[0]} on {host}: {done.stderr}")
    return done.stdout


def _round(lab: Lab) -> tuple[float, float]:
    _until(lambda: _standing(lab, "h1") == {"Leader", "Reachable"}, SETTLE_S)
    leader = _leader(lab, "h1")
    via = next(host for host in HOSTS if host != leader)
    lab.kill(leader)
    began = CLOCK.monotonic()
    _until(lambda: _leader(lab, via) not in ("", leader), SETTLE_S)
    led = CLOCK.monotonic() - began
    _until(lambda: _write(lab, via, str(began)), SETTLE_S)
    written = CLOCK.monotonic() - began
    lab.start(leader)
    return led, written


def _nodes(lab: Lab, via: str) -> list[dict[str, dict[str, str]]]:
    with Client(f"unix://{lab.socket_path(via)}", timeout_s=10.0) as client:
        found: list[dict[str, dict[str, str]]] = client.get("/nodes")
        return found


def _leader(lab: Lab, via: str) -> str:
    leading = (n for n in _nodes(lab, via) if n.get("ManagerStatus", {}).get("Leader"))
    return next((n["Description"]["Hostname"] for n in leading), "")


def _standing(lab: Lab, via: str) -> set[str]:
    """What the three managers are; empty until all of them are up."""
    statuses = [n.get("ManagerStatus", {}) for n in _nodes(lab, via)]
    found = ["Leader" if s.get("Leader") else s.get("Reachability", "").capitalize() for s in statuses]
    return set(found) if len(found) == len(HOSTS) else set()


def _write(lab: Lab, via: str, value: str) -> bool:
    with Client(f"unix://{lab.socket_path(via)}", timeout_s=10.0) as client:
        node = client.get("/nodes")[0]
        spec = {**node["Spec"], "Labels": {"round": value}}
        client.post(f"/nodes/{node['ID']}/update", spec, version=node["Version"]["Index"])
    return True


def _until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = CLOCK.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except (SwarmError, OSError):
            pass
        if CLOCK.monotonic() > deadline:
            raise SwarmError(f"the managers did not settle within {timeout_s:.0f} s")
        time.sleep(POLL_S)


if __name__ == "__main__":
    raise SystemExit(main())
