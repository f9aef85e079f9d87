"""The demo does what its commands say, and leaves nothing behind when it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from swarm.lab.lab import Lab
from swarm.lab.traces import find_traces

pytestmark = pytest.mark.root
LIMIT_S = 150


@pytest.fixture
def name() -> Iterator[str]:
    with Lab(f"d{os.getpid()}") as lab:
        yield lab.name


def _demo(name: str) -> list[str]:
    """Heeding SIGINT also where the tests, and so their children, run in the background and ignore it."""
    return ["env", "--default-signal=INT", sys.executable, "-m", "swarm.lab.demo", "--name", name]


def test_the_demo_shows_the_main_job(name):
    done = subprocess.run(_demo(name), capture_output=True, text=True, timeout=LIMIT_S)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b[" not in done.stdout, "colours are for terminals"
    for line in (
        "5/5",
        "10 out of 10 tasks",
        "Leader",
        "-- meanwhile 0 failed of ",
        "-- after:  0 processes",
    ):
        assert line in done.stdout
    assert len(re.findall(r"^4 x \w+(  4 x \w+){4}$", done.stdout, re.MULTILINE)) == 4
    assert not find_traces(name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(name, number):
    with subprocess.Popen(_demo(name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        try:
            assert demo.stdout is not None
            shown = next(line for line in demo.stdout if line.startswith("overall progress"))
            demo.send_signal(number)
            demo.communicate(timeout=LIMIT_S)
        finally:
            demo.kill()

    assert shown
    assert demo.returncode == 130
    assert not find_traces(name)
