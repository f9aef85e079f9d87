"""Real containers for tests: a small image's layer, and one swarmd's worth of containers.

Where crun refuses the machine's hybrid cgroups, a test module runs once more in a private mount namespace
without the v2 tree (`run_again_without_hybrid_cgroups`), and in it all but that run's result is skipped.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from swarm.base.clock import SystemClock
from swarm.base.ids import new_id
from swarm.worker.logs import read
from swarm.worker.runtime import cgroups
from swarm.worker.runtime.config import ContainerConfig
from swarm.worker.runtime.containers import Containers
from swarm.worker.runtime.host import CGROUP_ROOT, CgroupMode, cgroup_mode, detect_runtime
from swarm.worker.volumes import VolumeStore

IS_HYBRID = cgroup_mode(Path("/proc/self/mounts").read_text()) is CgroupMode.HYBRID
here = pytest.mark.skipif(IS_HYBRID, reason="runs within the run without hybrid cgroups")
SHORT = timedelta(seconds=0.2)
where_hybrid = pytest.mark.skipif(not IS_HYBRID, reason="crun runs here as it is")


def run_again_without_hybrid_cgroups(module):
    script = 'umount /sys/fs/cgroup/unified && exec "$@"'
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", module]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    layer = tmp_path_factory.mktemp("layer")
    for name in ("bin", "etc", "tmp", "data"):
        (layer / name).mkdir()
    shutil.copy("/bin/busybox", layer / "bin" / "busybox")
    for applet in (
        "sh",
        "cat",
        "ls",
        "id",
        "sleep",
        "seq",
        "echo",
        "grep",
        "true",
        "mount",
        "unshare",
        "touch",
        "mkdir",
        "dd",
        "kill",
        "mknod",
        "stat",
        "stty",
        "trap",
        "tty",
        "wc",
    ):
        (layer / "bin" / applet).symlink_to("busybox")
    (layer / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n")
    (layer / "etc" / "group").write_text("web:x:102:\nlog:x:104:web\n")
    (layer / "data" / "seed").write_text("seed\n")
    held = hold_cgroups()
    yield layer
    for directory in held:
        directory.rmdir()
    cgroups.remove_parent()


def hold_cgroups():
    """Something in each parent of containers' cgroups, so that another module's end does not remove it."""
    is_v2 = (CGROUP_ROOT / "cgroup.controllers").exists()
    roots = [CGROUP_ROOT] if is_v2 else {p.resolve() for p in CGROUP_ROOT.iterdir() if (p / "tasks").exists()}
    held = [root / cgroups.PARENT / f"held-{os.getpid()}" for root in roots]
    for directory in held:
        while not directory.exists():
            with suppress(FileNotFoundError):  # the parent was removed in this moment
                directory.mkdir(parents=True)
    return held


class Host:
    """One swarmd's worth of containers on directories of its own; `restart` forgets all that is in memory."""

    def __init__(self, directory):
        self.directory = directory
        self.volumes = VolumeStore(directory / "state" / "volumes", SystemClock())
        self.choice = detect_runtime()
        self.restart()

    def restart(self):
        if hasattr(self, "containers"):
            self.containers.close()
        self.containers = Containers(
            state_dir=self.directory / "state",
            run_dir=self.directory / "run",
            choice=self.choice,
            volumes=self.volumes,
            clock=SystemClock(),
        )

    def config(self, layer, *args, **more):
        return ContainerConfig(id=new_id(), lower_dirs=(layer,), args=args, env=("PATH=/bin",), **more)

    async def launch(self, layer, *args, **more):
        config = self.config(layer, *args, **more)
        await self.containers.create(config)
        await self.containers.start(config.id)
        return config.id

    async def run(self, layer, script, **more):
        """The exit status and the output of a shell script."""
        container_id = await self.launch(layer, "sh", "-c", script, **more)
        async with asyncio.timeout(30):
            status = await self.containers.wait(container_id)
        lines = [line.data.decode() async for line in read(self.containers.log_path(container_id))]
        await self.containers.remove(container_id)
        return status, lines

    def traces(self):
        """All that is left of containers on the machine."""
        found = [
            str(entry)
            for parent in ("state/containers", "run/containers", "run/exits", "run/crun", "run/runc")
            if (self.directory / parent).is_dir()
            for entry in (self.directory / parent).iterdir()
        ]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return found + [line for line in mounts if str(self.directory) in line]


@pytest.fixture
async def host(tmp_path):
    host = Host(tmp_path)
    try:
        yield host
    finally:
        await host.containers.adopt(known=())
        left = host.traces()
        host.containers.close()
        assert left == []


def descriptors():
    """How many this process has open."""
    gc.collect()  # what earlier tests left to it must not be closed between two counts
    return len(os.listdir("/proc/self/fd"))


def is_alive(pid):
    """Whether the process runs: its new parent may not have reaped it yet."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def line_of(host, container_id, wanted):
    """Wait until the container has logged `wanted`."""
    containers = host.containers
    path = containers.log_path(container_id)
    async with asyncio.timeout(20):
        async for line in read(path, follow=True, has_ended=lambda: containers.has_log_ended(container_id)):
            if line.data.decode() == wanted:
                return
