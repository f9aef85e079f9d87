"""Which failpoints there are, what may happen at one, where it is passed, and in what order to try them.

In: the source. Out: points. Pure, but for reading the source. Invariant: the order depends on the seed only,
and every name comes once before any comes twice: a run that is cut short has been as broad as it could.
"""

from __future__ import annotations

import ast
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "swarm"
HITS = (1, 2, 3)
GO_ON = "/run/failpoint-go-on"
"""Ends a pause, on the host."""
ACTIONS = ("kill9", "exit", "sleep:1.5", "error", f"pause:{GO_ON}")
FILE_ERROR = "error:ENOSPC"
_FILES = (
    *("private.", "identity.", "membership.save", "journal.", "images."),
    *("task.prepare", "container.", "network."),
)
"""Where a full disk (or the kernel) is what goes wrong; elsewhere the store does."""

MANAGER, WORKER, NEWCOMER = "h1", "h2", "h3"


@dataclass(frozen=True, slots=True)
class Place:
    """Who passes the points whose names start so, and while what is done."""

    starts: tuple[str, ...]
    host: str
    scenario: str


_PLACES = (
    Place(("node.init.", "restore.", "manager.sow."), NEWCOMER, "founding"),
    Place(("lock.key.",), MANAGER, "locking"),
    Place(("lock.",), WORKER, "locking"),
    Place(("unlock.",), WORKER, "unlocking"),
    Place(("upkeep.",), MANAGER, "upkeep"),
    Place(("store.refound.",), MANAGER, "recovery"),
    Place(("leader.resigning",), MANAGER, "handover"),
    Place(("datakey.fetch.",), WORKER, "locking"),
    Place(("cluster.", "datakey.", "authority.", "certificate.reply", "backup."), MANAGER, "secrets"),
    Place(("certificate.renewed", "identity.root."), WORKER, "secrets"),
    Place(("store.", "leader.", "dispatcher.", "manager.serving"), MANAGER, "services"),
    Place(("journal.epoch.",), NEWCOMER, "membership"),
    Place(("agent.", "task.", "container.", "journal.", "images."), WORKER, "services"),
    Place(("network.",), WORKER, "networks"),
    Place(("members.", "join."), MANAGER, "membership"),
    Place(("",), NEWCOMER, "membership"),
)


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    hit: int
    action: str = "kill9"

    def __str__(self) -> str:
        return f"{self.name}:{self.hit}:{self.action}"

    @property
    def host(self) -> str:
        return self._place.host

    @property
    def scenario(self) -> str:
        """The one during which the host passes the point."""
        return self._place.scenario

    @property
    def _place(self) -> Place:
        return next(place for place in _PLACES if self.name.startswith(place.starts))


def names_in_code() -> list[str]:
    """Every failpoint's name, as often as it is used."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "failpoint.py" or "gen" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: not a literal"
                found.append(argument.value)
    return found


def all_points() -> list[Point]:
    """Every name, hit and action."""
    return [
        Point(name, hit, FILE_ERROR if action == "error" and name.startswith(_FILES) else action)
        for name, hit, action in itertools.product(sorted(names_in_code()), HITS, ACTIONS)
    ]


def in_order(points: list[Point], chance: random.Random) -> list[Point]:
    """By chance, the first hits first, no name twice before every one has had its turn."""
    turns: Counter[tuple[str, int]] = Counter()
    numbered = []
    for point in chance.sample(points, len(points)):
        turns[point.name, point.hit] += 1
        numbered.append(((turns[point.name, point.hit] - 1) * len(HITS) + point.hit, point))
    return [point for _, point in sorted(numbered, key=lambda pair: pair[0])]
