"""Scenario S with a kill -9 at one failpoint: services are made, scaled and removed, a node joins and is
promoted; somewhere on the way one swarmd dies, is started again, and everything must end as asked.

In: a cluster, a host, a failpoint's name and hit. Out: what was seen. Invariant: nobody does anything by hand
after the kill but ask again, as a user would whose connection broke.
"""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "swarm"


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
