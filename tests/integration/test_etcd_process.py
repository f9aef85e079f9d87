"""The etcd child for real: it never outlives its parent, is never doubled, and comes back when killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarm.base.errors import FailedPrecondition
from swarm.store import etcd_process
from swarm.store.etcd_process import check_version

pytestmark = pytest.mark.root

PROGRAM = Path(__file__).with_name("etcd_parent.py")
ROOT = Path(__file__).parents[2]
START_S = 15


class Parent:
    def __init__(self, process) -> None:
        self._process = process

    async def says(self, word: str) -> str:
        """What it prints next after `word`."""
        async with asyncio.timeout(START_S):
            while line := (await self._process.stdout.readline()).decode():
                if line.startswith(word):
                    return line.removeprefix(word).strip()
        raise AssertionError("the parent has ended")

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def parent(directory: Path):
    """Exec'd through both programs, so that the process is the parent itself."""
    inside = f"ip link set lo up && exec {sys.executable} {PROGRAM} {directory}"
    process = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-c", inside,
        stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    made = Parent(process)
    try:
        yield made
    finally:
        await made.kill()
        process._transport.close()


async def gone(pid: int) -> None:
    """Wait until the process has ended; it is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(5):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def members_on(directory: Path) -> list[int]:
    """Every etcd that runs on this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"etcd" and f"--data-dir={directory / 'etcd' / 'data'}".encode() in words:
                found.append(int(entry.name))
    return found


async def test_a_killed_etcd_is_started_again_with_its_data(tmp_path):
    async with parent(tmp_path) as one:
        assert await one.says("starts") == "1"
        first = int(await one.says("pid"))
        os.kill(first, signal.SIGKILL)
        second = int(await one.says("pid"))
        assert second != first
        assert members_on(tmp_path) == [second]
    await gone(second)


async def test_etcd_dies_with_its_parent_and_the_next_parent_starts_one_in_time(tmp_path):
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with parent(tmp_path) as one:
        pid = int(await one.says("pid"))
        usual_s = loop.time() - began
        await one.kill()
        began = loop.time()
        async with parent(tmp_path) as two:
            assert await two.says("starts") == "2", "what was written is there"
            assert loop.time() - began < 4 + usual_s
            assert members_on(tmp_path) == [int(await two.says("pid"))]
        await gone(pid)


async def test_a_second_parent_waits_while_the_first_one_s_etcd_lives(tmp_path):
    async with parent(tmp_path) as one:
        pid = int(await one.says("pid"))
        async with parent(tmp_path) as two:
            waiting = asyncio.ensure_future(two.says("starts"))
            done, _ = await asyncio.wait({waiting}, timeout=2)
            assert not done
            assert members_on(tmp_path) == [pid]
            await one.kill()
            assert await waiting == "2"


async def test_node_certificates_do_not_open_etcd(tmp_path):
    async with parent(tmp_path) as one:
        assert await one.says("manager certificate") == "refused"
        assert await one.says("worker certificate") == "refused"


async def test_the_program_on_path_is_judged(monkeypatch):
    assert await check_version()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FailedPrecondition, match="no etcd program on PATH: install it"):
        await check_version()
    assert etcd_process.REFUSED
