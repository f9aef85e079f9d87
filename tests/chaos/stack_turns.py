"""A stack is removed and deployed again at once, many times: `make chaos CHAOS=stack_turns`.

In: a cluster that has the image `web`, and how often. Out: the turns that failed, and what was left at the
end; the hosts' logs stay in LOGS.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from swarm.lab import demo_image
from swarm.lab.lab import Lab
from tests.chaos.chaos_lab import keep_logs
from tests.integration.cluster import Cluster

LOGS = Path(tempfile.gettempdir()) / "swarm-stack-turns"
TURNS = 200
TURN_S = 60.0
_EVERY = 3
"""In each third turn it is waited for tasks to run; in the others they are removed while they start."""

_COMPOSE = """
services:
  first:
    image: web
    ports: ["8080:80"]
    stop_grace_period: 1s
    deploy: {{replicas: 2}}
  second:
    image: web
    environment: {{TURN: "{turn}"}}
    stop_grace_period: 1s
    depends_on: [first]
    configs: [settings]
configs:
  settings:
    content: turn {turn}
"""


def take_turns(cluster: Cluster, folder: Path, number: int, say: Callable[[str], None] = print) -> list[str]:
    broken: list[str] = []
    file = folder / "compose.yml"
    for turn in range(number):
        file.write_text(_COMPOSE.format(turn=turn))
        for command in (("deploy", "--detach", "-c", str(file), "turns"), ("rm", "turns")):
            done = cluster.run("h1", "swarm", "stack", *command, timeout=TURN_S)
            if done.returncode:
                broken.append(f"turn {turn}: stack {command[0]}: {done.stderr.strip()}")
            if command[0] == "deploy" and turn % _EVERY == 0:
                cluster.wait_running("turns_second", 1)
        if turn % 20 == 19:
            say(f"  {turn + 1} turns")
    try:
        cluster.wait_clean()
    except AssertionError as error:
        broken.append(str(error))
    return broken


def main() -> int:
    turns = int(os.environ.get("CHAOS_TURNS") or TURNS)
    with tempfile.TemporaryDirectory() as folder, Lab("turns") as lab:
        archive = Path(folder, "web.tar")
        demo_image.build("web", archive)
        cluster = Cluster(lab.up(hosts=2))
        try:
            cluster.load(archive)
            cluster.found()
            broken = take_turns(cluster, Path(folder), turns)
        finally:
            LOGS.mkdir(exist_ok=True)
            keep_logs(lab, LOGS)
    for sentence in broken:
        print(sentence)
    print(f"{len(broken)} problems" if broken else f"no problem in {turns} turns")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
