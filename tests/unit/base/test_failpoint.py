"""Failpoints: what arming one does, and that every one in the code is unique and documented."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarm.base import failpoint as module
from swarm.base.errors import InvalidArgument, Unavailable
from swarm.base.failpoint import Action, Armed, failpoint, parse_failpoints
from tests.chaos.points import names_in_code

DOCUMENTED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)`")


@pytest.fixture
def armed():
    yield module.arm
    module.arm("")


def test_parsing():
    assert parse_failpoints("") == {}
    assert parse_failpoints("a.b:2:kill9; c.d:1:sleep:0.5;a.b:3:error:ENOSPC") == {
        "a.b": (
            Armed(hit=2, action=Action.KILL9),
            Armed(hit=3, action=Action.ERROR, argument="ENOSPC"),
        ),
        "c.d": (Armed(hit=1, action=Action.SLEEP, argument="0.5"),),
    }


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a:1",
        "a:0:exit",
        "a:x:exit",
        ":1:exit",
        "a:1:boom",
        "a:1:sleep",
        "a:1:error:EWHAT",
        "a:1:pause:x",
    ],
)
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(InvalidArgument, match="invalid failpoint"):
        parse_failpoints(text)


def test_an_error_comes_at_its_hit_and_once(armed):
    armed("x.y:2:error;z.z:1:error:ENOSPC")
    failpoint("x.y")
    with pytest.raises(Unavailable, match=r"x\.y"):
        failpoint("x.y")
    failpoint("x.y")
    failpoint("other")
    with pytest.raises(OSError, match="No space left"):
        failpoint("z.z")


def test_a_pause_lasts_until_the_file_is_there(armed, tmp_path):
    (tmp_path / "go").touch()
    armed(f"x.y:1:pause:{tmp_path / 'go'}")
    failpoint("x.y")


@pytest.mark.parametrize(("action", "status"), [("kill9", -9), ("exit", 1)])
def test_a_process_dies_where_it_is_told_to(action, status):
    code = (
        "from swarm.base.failpoint import failpoint\n"
        "failpoint('x.y')\nprint('one', flush=True)\nfailpoint('x.y')\nprint('two')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"SWARM_FAILPOINTS": f"x.y:2:{action}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "one\n"), done.stderr
    assert done.stderr == f"failpoint x.y hit 2: {action}\n"


def test_an_unarmed_point_costs_next_to_nothing():
    began = time.process_time()
    for _ in range(100_000):
        failpoint("x.y")
    assert time.process_time() - began < 0.5


def test_every_name_stands_once_in_the_code_and_in_the_docs():
    names = names_in_code()
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
    text = Path("docs/testing.md").read_text()
    listed = text[text.index("## Failpoints") :]
    documented = DOCUMENTED.findall(listed.split("\n## ")[0])
    assert sorted(documented) == sorted(names)
