"""Replays every scenario: a file is blocks of command, `----`, expected output, with a blank line between.

Lines that start with # before a command are its comment. `pytest tests/scenarios --rewrite` records the
outputs anew; the difference is to be read, for it is what users will see.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.env import Scenario

FILES = sorted(Path(__file__).parent.glob("*.txt"))
SEPARATOR = "----"


def replay(text: str) -> str:
    scenario = Scenario()
    blocks = []
    for block in text.strip().split("\n\n"):
        head = block.split(f"\n{SEPARATOR}")[0]
        commands = [line for line in head.splitlines() if line and not line.startswith("#")]
        output = [scenario.run(line) for line in commands]
        shown = [lines for lines in output if lines != "ok"] or (["ok"] if commands else [])
        blocks.append("\n".join([head, SEPARATOR, *shown]) if commands else head)
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    actual = replay(text)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(actual)
    else:
        assert actual == text
