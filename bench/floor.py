"""The floor: containers started by a bare loop over conmon and crun, run as a program inside a host.

In: how many. Out: one JSON line `{"seconds": ...}`; every container is running then, and afterwards removed.
The bundles are those that swarmd writes (same limits, mounts and system call filter, compiled once), prepared
before the clock starts; two are started at a time. Nothing here knows of tasks, networks or a cluster.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.ids import new_id
from swarm.worker.runtime.bundle import BundlePaths, Bundles
from swarm.worker.runtime.config import ContainerConfig
from swarm.worker.runtime.conmon import Conmon
from swarm.worker.runtime.containers import Containers
from swarm.worker.runtime.crun import OciRuntime, environment
from swarm.worker.runtime.host import detect_facts, detect_runtime
from swarm.worker.volumes import VolumeStore

COMMAND = ("sleep", "100000")
AT_A_TIME = 2
_LAYER_DIRS = ("bin", "dev", "etc", "proc", "sys", "tmp")


class Floor:
    """Bundles of its own under one directory, beside those of the host's swarmd."""

    def __init__(self, state: Path, run: Path) -> None:
        choice = detect_runtime()
        clock = SystemClock()
        volumes = VolumeStore(state / "volumes", clock)
        self._layer = state / "layer"
        self._bundles = Bundles(state_dir=state, run_dir=run, volumes=volumes, host=detect_facts())
        self._runtime = OciRuntime(choice.program, run / choice.name)
        self._conmon = Conmon(choice.conmon, self._runtime)
        self.containers = Containers(
            state_dir=state, run_dir=run, choice=choice, volumes=volumes, clock=clock
        )
        self._make_layer()

    def prepare(self, count: int) -> list[BundlePaths]:
        return [self._bundles.prepare(self._config()) for _ in range(count)]

    def warm_up(self) -> None:
        """One container, for the page cache and the compiled filter."""
        (paths,) = self.prepare(1)
        self._start_one(paths)
        self._bundles.keep_filter(self._config(), self._runtime.compiled_filter(paths.bundle.name))

    def start(self, bundles: list[BundlePaths]) -> float:
        """Start them all; returns the seconds it took."""
        clock = SystemClock()
        shares = [bundles[number::AT_A_TIME] for number in range(AT_A_TIME)]
        began = clock.monotonic()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(self._start_some, shares))
        return clock.monotonic() - began

    def _start_some(self, share: list[BundlePaths]) -> None:
        for paths in share:
            self._start_one(paths)

    def _start_one(self, paths: BundlePaths) -> None:
        name = paths.bundle.name
        read_fd, write_fd = os.pipe()
        conmon = subprocess.Popen(
            self._conmon.command(replace(self._config(), id=name), paths),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**environment(), "_OCI_SYNCPIPE": str(write_fd)},
            pass_fds=(write_fd,),
            cwd=paths.bundle,
        )
        os.close(write_fd)
        with os.fdopen(read_fd) as answer:
            if int(json.loads(answer.readline())["data"]) <= 0:
                raise RuntimeError(f"conmon cannot create {name}")
        conmon.wait()
        subprocess.run([self._runtime.program, *self._runtime.arguments, "start", name], check=True)

    def _config(self) -> ContainerConfig:
        return ContainerConfig(id=new_id(), lower_dirs=(self._layer,), args=COMMAND, env=("PATH=/bin",))

    def _make_layer(self) -> None:
        for name in _LAYER_DIRS:
            (self._layer / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self._layer / "bin" / "busybox")
        (self._layer / "bin" / "sleep").symlink_to("busybox")


async def measure(count: int) -> float:
    state = Path(tempfile.mkdtemp(prefix="swarm-floor-", dir="/var/lib/swarm"))
    run = Path(tempfile.mkdtemp(prefix="swarm-floor-", dir="/run"))
    floor = Floor(state, run)
    try:
        floor.warm_up()
        return floor.start(floor.prepare(count))
    finally:
        await floor.containers.adopt(known=())
        floor.containers.close()
        shutil.rmtree(state)
        shutil.rmtree(run)


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps({"seconds": asyncio.run(measure(int(sys.argv[1])))}))
