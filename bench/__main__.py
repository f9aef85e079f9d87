"""`python -m bench`: the project's figures, each against a floor or peer of the same run.

Prints a table as it goes and again at the end. Exit status 0 unless something could not be measured: a
missed target is said in the table.
"""

from __future__ import annotations

import argparse
import compileall
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import command, discovery, memory, news, scale, starting, traffic, ways
from bench.cluster import Cluster, cluster
from bench.report import Figure, table
from swarm.base.errors import SwarmError

MEASURES: dict[str, Callable[..., Iterator[Figure]]] = {
    "start": starting.measure,
    "command": command.measure,
    "memory": memory.measure,
    "traffic": traffic.measure,
    "discovery": discovery.measure,
    "news": news.measure,
    "ways": ways.measure,
    "scale": scale.measure,
}
HOSTS = 2


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure against floors of the same run."
    )
    parser.add_argument("--only", choices=tuple(MEASURES), action="append", help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="less of everything, to see that it works")
    parser.add_argument("--name", default="bench", help="the lab's name (default: %(default)s)")
    options = parser.parse_args(argv)
    os.chdir(Path(__file__).parent.parent)  # hosts see the same files and start programs of `bench` from here
    for package in ("swarm", "bench"):  # as an installation is: its bytecode is there
        compileall.compile_dir(package, quiet=1)
    figures: list[Figure] = []
    try:
        with cluster(options.name, HOSTS) as made:
            for figure in _measure(made, options.only or tuple(MEASURES), quick=options.quick):
                ratio = "" if figure.ratio is None else f", {figure.ratio:.2f} of its peer"
                said = f"... {figure.name}: {figure.measured:.2f} {figure.unit}{ratio}"
                print(said, file=sys.stderr, flush=True)
                figures.append(figure)
    except SwarmError as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 1
    print(table(figures))
    return 0


def _measure(made: Cluster, names: Sequence[str], *, quick: bool) -> Iterator[Figure]:
    for name in names:
        yield from MEASURES[name](made, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
