"""Compose texts that are made to hurt: each is answered within bounds of time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest

CHILD = """
import json, sys, time
from swarm.base.errors import InvalidArgument
from swarm.stack.load import load_stack
from swarm.stack.project import LoadOptions
answers = {}
for name, text in json.load(sys.stdin).items():
    options = LoadOptions(stdin=text, directory="/", environment={"A": "x" * 100_000})
    before = time.process_time()
    try:
        found = f"{len(load_stack('st', ['-'], options).services)} services"
    except InvalidArgument as error:
        found = str(error)
    answers[name] = [found, time.process_time() - before]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([answers, int(status["VmHWM"].split()[0])]))  # its own: ru_maxrss is that of the parent, too
"""
SERVICE = "services:\n  a:\n    image: x\n"
MANY = range(40_000)
HOSTILE = {
    "keys": (
        "services:\n" + "\n".join(f"  {'k' * 900}{at}: {{image: x}}" for at in range(1100)),
        "name must be",
    ),
    "labels": (SERVICE + "    labels:\n" + "\n".join(f"      k{at}: v" for at in MANY), "too large"),
    "bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghi")),
        "too large",
    ),
    "merges": (
        "x-a: &a {k: v}\n" + SERVICE + f"    labels: {{<<: [{','.join(['*a'] * 30_000)}]}}\n",
        "too large",
    ),
    "brackets": ("a: " + "[" * 100_000, "nested too deeply"),
    "indents": ("\n".join(" " * at + "a:" for at in range(1000)), "nested too deeply"),
    "open list": ("a: [" + "x," * 500_000, "too large"),
    "quotes": ('a: "' * 200_000, "unexpected"),
    "spaces": ("a:" + " " * 900_000 + "#", "unknown key 'a'"),
    "words": (SERVICE.strip() + " a" * 400_000, "labels are too large"),
    "variables": (SERVICE + "    command: " + "${A:-" * 10_000, "nested more than 20 deep"),
    "dollars": (SERVICE + "    command: " + "$$" * 400_000, "1 services"),
    "values": (SERVICE + "    labels: [" + "a=$A," * 20_000 + "]", "too large"),
    "one value": (SERVICE + "    labels: [" + "$A" * 20_000 + "]", "too large"),
    "chain": (
        "services:\n" + "".join(f"  s{at}: {{image: x, extends: s{at + 1}}}\n" for at in range(5000)),
        "more than 50 deep",
    ),
    "digits": (SERVICE + "    deploy: {replicas: " + "9" * 900_000 + "}", "expected a whole number"),
    "backslashes": (SERVICE + '    command: "' + "\\\\" * 400_000, "never closed"),
    "duration": (SERVICE + "    stop_grace_period: " + "1s" * 300_000, "too long a text"),
    "size": (SERVICE + "    shm_size: " + "1" * 300_000, "shm_size"),
    "notices": (
        "services:\n" + "".join(f"  s{at}: {{image: x, build: ., links: []}}\n" for at in range(4000)),
        "4000 services",
    ),
    "resets": (
        SERVICE + "    labels:\n" + "".join(f"      k{at}: !reset v\n" for at in range(15_000)),
        "1 services",
    ),
    "near misses": (SERVICE + f"    {'imag' * 200_000}: x", "unknown key"),
}  # fmt: skip


@pytest.fixture(scope="module")
def child():
    """All of them in one process of their own: what each was answered, and the most memory that any took."""
    texts = json.dumps({name: text for name, (text, _) in HOSTILE.items()})
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=texts, capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(name, child):
    found, seconds = child[0][name]
    assert HOSTILE[name][1] in found
    assert len(found) < 600
    assert seconds < 3  # of CPU; one or less on an idle machine


def test_memory_is_bounded(child):
    assert child[1] < 200_000  # KiB
