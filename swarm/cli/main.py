"""The `swarm` program: arguments in, an exit status out. What is slow to import waits until it is needed."""

from __future__ import annotations

import sys

from swarm import __version__


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if arguments in (["--version"], ["-v"]):
        print(f"swarm version {__version__}")
        return 0
    from swarm.cli.root import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
