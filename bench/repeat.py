"""Runs a program several times inside a host: `COUNT PROGRAM ARG...`; prints a JSON list of seconds."""

from __future__ import annotations

import json
import subprocess
import sys

from swarm.base.clock import SystemClock


def main() -> None:
    count, argv = int(sys.argv[1]), sys.argv[2:]
    clock = SystemClock()
    seconds: list[float] = []
    for _ in range(count):
        began = clock.monotonic()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=30)
        seconds.append(clock.monotonic() - began)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
