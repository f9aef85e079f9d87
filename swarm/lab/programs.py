"""Runs the machine's programs (`ip`, `nft`, `nsenter`).

In: an argv list, never a shell's line, and what to feed it. Out: its standard output, or one error that
carries the program's own words. Invariant: no program runs without a deadline.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from swarm.base.errors import FailedPrecondition, PermissionDenied, SwarmError

DEADLINE_S = 20.0
_PACKAGES = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "env": "coreutils"}


def require_root() -> None:
    """Raises: PermissionDenied."""
    if os.geteuid() != 0:
        raise PermissionDenied("swarm lab makes namespaces and cgroups: run it as root")


def require_machine() -> None:
    """Raises: PermissionDenied, FailedPrecondition: not root, or a program is missing."""
    require_root()
    for program, package in _PACKAGES.items():
        if shutil.which(program) is None:
            raise FailedPrecondition(f"swarm lab needs the program {program}: apt-get install {package}")


def run(argv: Sequence[str], *, feed: str = "") -> str:
    """The standard output of `argv`, fed with `feed`.

    Raises:
        SwarmError: it failed or took longer than DEADLINE_S.
    """
    try:
        done = subprocess.run(
            argv, input=feed, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SwarmError(f"{' '.join(argv)} did not end within {DEADLINE_S:.0f} s") from error
    if done.returncode != 0:
        words = done.stderr.strip() or f"exit status {done.returncode}"
        raise SwarmError(f"{' '.join(argv)}: {words.splitlines()[0]}")
    return done.stdout


def leave_running(argv: Sequence[str]) -> None:
    """Run `argv`, which leaves a process behind: with no pipe to this one, which would be waited for."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        raise SwarmError(f"{' '.join(argv)}: exit status {done.returncode}")
