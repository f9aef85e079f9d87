"""Runs a program as one of a host's processes: joins the host's cgroups, then becomes the program.

In: argv `GROUP... -- PROGRAM ARG...`. The program is `nsenter`, which changes namespaces but not cgroups.
Invariant: the program runs in the groups or not at all. It is also a script that imports nothing but `os`
and `sys`, since each `exec` into a host pays for its start.
"""

from __future__ import annotations

import os
import sys


def enter(groups: list[str], argv: list[str], environment: dict[str, str]) -> None:
    """Does not return: this process is `argv` from here on."""
    for group in groups:
        with open(f"{group}/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write("0")
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - there is no shell here, which is the point


if __name__ == "__main__":
    _split = sys.argv.index("--")
    enter(sys.argv[1:_split], sys.argv[_split + 1 :], dict(os.environ))
