"""The programs beside swarmd: one for each socket, however often and however slowly they are started."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from swarm.base.clock import SystemClock
from swarm.overlay.side_process import SideProcess

MODULE = "swarm.overlay.relay"
pytestmark = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="needs IPv6")


async def start(path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", MODULE, os.fspath(path))


async def test_of_two_that_are_started_one_is_left(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    one, other = await start(path), await start(path)
    side = SideProcess(MODULE, path)
    try:
        ends = [asyncio.ensure_future(each.wait()) for each in (one, other)]
        async with asyncio.timeout(20):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert await side.ask({"ports": {}}) == {"failed": {}}
        await side.end()
        async with asyncio.timeout(20):
            assert [await end for end in ends] == [0, 0]
    finally:
        for each in (one, other):
            if each.returncode is None:
                each.kill()
                await each.wait()


async def test_one_that_does_not_listen_yet_is_ended_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    side = SideProcess(MODULE, path)
    side._spawn()
    pid = side._pid
    began = SystemClock().monotonic()
    await side.end()
    assert SystemClock().monotonic() - began < 10
    assert not Path(f"/proc/{pid}").exists()
    assert not path.exists()


async def test_another_one_is_started_as_soon_as_one_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    side = SideProcess(MODULE, path)
    try:
        for _ in range(3):
            assert await side.ask({"ports": {}}) == {"failed": {}}
            await side.end()
            assert not path.exists()
    finally:
        await side.end()
