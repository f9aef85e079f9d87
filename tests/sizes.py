"""Keeps files small: warns from 400 lines, fails from 600. Run by `make check`."""

from __future__ import annotations

import sys
from pathlib import Path

WARN, FAIL = 400, 600


def main() -> int:
    failed = False
    for path in sorted([*Path("swarm").rglob("*.py"), *Path("tests").rglob("*.py")]):
        if "gen" in path.parts:
            continue
        lines = len(path.read_text().splitlines())
        if lines > WARN:
            print(f"{'FAIL' if lines > FAIL else 'note'}: {path} has {lines} lines")
        failed = failed or lines > FAIL
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
