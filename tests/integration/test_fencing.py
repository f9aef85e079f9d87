"""A leader that stands still in the middle of its writes and goes on when another one leads, on a real etcd.

What each epoch wrote, and when, is read from etcd afterwards: every write has a key of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarm.base.clock import SystemClock
from swarm.manager.ca.etcd_ca import certify_member, create_etcd_ca
from swarm.store import etcd_process, keys
from swarm.store.etcd import EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings
from tests.chaos.invariants import check_fenced
from tests.fakes.manager_site import free_ports

PROGRAM = Path(__file__).with_name("leader_program.py")
ROOT = Path(__file__).parents[2]
TURN_S = 20.0
TASKS = f"{keys.OBJECTS}tasks/"


@pytest.fixture
async def etcd(tmp_path, monkeypatch):
    """(target, its files' directory, a client)."""
    for name, port in zip(("ETCD_CLIENT_PORT", "ETCD_PEER_PORT"), free_ports(2), strict=True):
        monkeypatch.setattr(etcd_process, name, port)
    now = SystemClock().now()
    pki = tmp_path / "pki"
    files = certify_member(pki, create_etcd_ca(now), "127.0.0.1")
    settings = EtcdSettings(name="n1", directory=tmp_path / "etcd", peer_address="127.0.0.1", files=files)
    process = EtcdProcess(settings)
    running = asyncio.ensure_future(process.run())
    await process.serving()
    kv = EtcdKV(files.address())
    yield files.address().target, pki, kv
    await kv.aclose()
    running.cancel()
    await asyncio.wait({running})


class Campaigner:
    def __init__(self, process) -> None:
        self._process = process
        self.epochs: list[int] = []

    async def says(self, word: str) -> int:
        """The epoch of the next such line."""
        async with asyncio.timeout(TURN_S):
            while line := (await self._process.stdout.readline()).decode():
                what, _, epoch = line.partition(" ")
                if what == "leads":
                    self.epochs.append(int(epoch))
                if what == word:
                    return int(epoch)
        raise AssertionError("the program has ended")

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)


@asynccontextmanager
async def campaigner(etcd, name, how):
    target, pki, _ = etcd
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), target, str(pki), name, how),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield Campaigner(process)
    finally:
        process.kill()
        await process.wait()
        process._transport.close()


async def wait_write_of(kv, epoch, at_least):
    """Until the epoch has written so many tasks."""
    async with asyncio.timeout(TURN_S):
        while len((await kv.list(f"{TASKS}{epoch}-")).items) < at_least:  # noqa: ASYNC110 - etcd is asked
            await asyncio.sleep(0.02)


async def stop_leaders_in_turn(etcd, how, turns):
    """(epochs, writes) after the leader was stopped so often, each time until another one led and wrote."""
    kv = etcd[2]
    async with campaigner(etcd, "n1", how) as one:
        epoch = await one.says("leads")
        async with campaigner(etcd, "n2", how) as two:
            leader, other = one, two
            for _ in range(turns):
                await wait_write_of(kv, epoch, 20)
                leader.signal(signal.SIGSTOP)
                successor = await other.says("leads")
                await wait_write_of(kv, successor, 20)
                leader.signal(signal.SIGCONT)
                assert await leader.says("lost") == epoch, "it finds out, and only then"
                leader, other, epoch = other, leader, successor
            written = (await kv.list(TASKS)).items
    ids = ((item.key.removeprefix(TASKS), item.mod_revision) for item in written)
    return one.epochs + two.epochs, [(int(name.partition("-")[0]), revision) for name, revision in ids]


async def test_a_leader_that_was_stopped_in_its_writes_has_nothing_accepted_afterwards(etcd):
    epochs, writes = await stop_leaders_in_turn(etcd, "fenced", turns=4)
    assert len(epochs) == 5
    assert len(writes) >= 100
    assert check_fenced(epochs, writes) == []


async def test_without_the_fence_the_same_history_shows_its_writes(etcd):
    epochs, writes = await stop_leaders_in_turn(etcd, "unfenced", turns=1)
    assert check_fenced(epochs, writes)
