"""One member is left of three that lost power at once: what it has goes to a store of its own, whole.

The negative control is the same member started with etcd's `--force-new-cluster` alone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from swarm.base.clock import SystemClock
from swarm.base.errors import Unavailable
from swarm.manager.ca.etcd_ca import certify_member, create_etcd_ca
from swarm.store import etcd_process, keys
from swarm.store.continued import ContinuedKV
from swarm.store.etcd import EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings, arguments
from swarm.store.kv import Compare, Put
from swarm.store.members import Members
from tests.fakes.manager_site import free_ports
from tests.integration.refounding_program import found_anew

PROGRAM = Path(__file__).with_name("refounding_program.py")
ROOT = Path(__file__).parents[2]
BURST = 100
SERVICES = f"{keys.OBJECTS}services/"
PATIENCE_S = 20.0


class Site:
    """Members on this host, each with ports of its own."""

    def __init__(self, directory, patch):
        self._directory = directory
        self._patch = patch
        now = SystemClock().now()
        self.pki = directory / "pki"
        self.files = certify_member(self.pki, create_etcd_ca(now), "127.0.0.1")
        self.ports = {}
        self._running = {}

    def settings(self, name):
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        return EtcdSettings(name=name, directory=directory, peer_address="127.0.0.1", files=self.files)

    def url(self, name):
        return f"https://127.0.0.1:{self.port(name)[1]}"

    def port(self, name):
        """(client's, peers')"""
        return self.ports.setdefault(name, free_ports(2))

    def use(self, name):
        """From here on our own code means this member."""
        for constant, port in zip(("ETCD_CLIENT_PORT", "ETCD_PEER_PORT"), self.port(name), strict=True):
            self._patch.setattr(etcd_process, constant, port)

    def start(self, name, members, state="new"):
        self.use(name)
        initial = ",".join(f"{member}={self.url(member)}" for member in members)
        words = arguments(replace(self.settings(name), initial_cluster=initial))
        words = [word.replace("cluster-state=existing", f"cluster-state={state}") for word in words]
        words += ["--election-timeout=10000"]  # one that stands still for a moment is not taken for dead
        self._running[name] = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @contextmanager
    def stopped(self, names):
        """They stand still meanwhile: the leader writes its log, and nothing is committed."""
        for name in names:
            self._running[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self._running[name].send_signal(signal.SIGCONT)

    async def leader(self):
        for name in self._running:
            async with self.client(name) as kv:
                status = await insist(Members(kv.channel).status)
                if status.id == status.leader:
                    return name
        raise AssertionError("no member leads")

    async def has_logged_all(self, name):
        """Until the services are in the member's log."""
        folder = self.settings(name).directory / "data" / "member" / "wal"
        async with asyncio.timeout(PATIENCE_S):
            while count_in(folder.glob("*.wal")) < BURST:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.02)

    async def applied_index(self, name):
        async with self.client(name) as kv:
            return (await insist(Members(kv.channel).status)).applied_index

    async def has_kept_all(self, name, leader):
        """Until what the leader has applied is in the member's data, on its disk."""
        applied = await self.applied_index(leader)
        async with asyncio.timeout(PATIENCE_S):
            while await self.applied_index(name) < applied:  # noqa: ASYNC110 - etcd tells nobody
                await asyncio.sleep(0.02)
        async with self.client(name) as kv:
            await Members(kv.channel).defragment()  # which writes what was waiting, and nothing to the log

    async def agree(self, name):
        """Until the members have settled their common version, which is a write of their own."""
        trust = ssl.create_default_context(cafile=self.files.ca)
        trust.load_cert_chain(self.files.cert, self.files.key)
        url = f"https://127.0.0.1:{self.port(name)[0]}/version"
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as session:
            found = {}
            while not found.get("etcdserver", "-").startswith(found.get("etcdcluster", "?")[:3]):
                await asyncio.sleep(0.05)
                async with session.get(url, ssl=trust) as response:
                    found = await response.json(content_type=None)

    def kill(self):
        for process in self._running.values():
            process.kill()
            process.wait()
        self._running.clear()

    def client(self, name):
        self.use(name)
        return aclosing(EtcdKV(self.files.address()))

    @asynccontextmanager
    async def member(self, name, *, force=False):
        """The member, run as swarmd runs it."""
        self.use(name)
        process = EtcdProcess(replace(self.settings(name), force_new_cluster=force))
        running = asyncio.ensure_future(process.run())
        try:
            await process.serving()
            async with self.client(name) as kv:
                yield kv
        finally:
            running.cancel()
            await asyncio.wait({running})


def count_in(files):
    """How many keys of services there are in them."""
    return sum(file.read_bytes().count(SERVICES.encode()) for file in files)


async def insist(call):
    """Its result, once etcd does it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.05)


@pytest.fixture
async def site(tmp_path, monkeypatch):
    """n1 to n3 were killed together a moment after a burst of writes; only n1's disk is left."""
    made = Site(tmp_path, monkeypatch)
    try:
        names = ("n1", "n2", "n3")
        for name in names:
            made.start(name, names)
        async with made.client("n1") as kv:
            await insist(lambda: kv.txn([], [Put(keys.LEADER, b"n1")]))
            await kv.txn([], [Put(keys.LEADER_BEAT, b"7.1"), Put(keys.MANAGERS + "n1", b"1")])
        await made.agree("n1")
        leader = await made.leader()
        async with made.client(leader) as kv:
            # Committed all at once, behind the last word of it in the log: that word is not synced alone.
            with made.stopped([name for name in names if name != leader]):
                puts = (kv.txn([], [Put(f"{SERVICES}{number:03}", b"x" * 300)]) for number in range(BURST))
                writes = asyncio.gather(*puts)
                await made.has_logged_all(leader)
            await writes
        await made.has_kept_all("n1", leader)
        made.kill()
        for name in names[1:]:
            shutil.rmtree(made.settings(name).directory)
        yield made
    finally:
        made.kill()


@pytest.mark.soak
async def test_a_member_that_is_forced_alone_swallows_writes(site):
    """The control: what happens without us. An election at the wrong moment syncs what is to be lost."""
    async with site.member("n1", force=True) as kv:
        assert len((await kv.list(SERVICES)).items) == BURST
        with pytest.raises(Unavailable):
            await kv.txn([], [Put("/swarm/lost", b"1")])


async def test_a_store_founded_anew_has_all_and_who_joins_it_has_the_same(site):
    site.use("n1")
    await found_anew(site.settings("n1"))
    assert sorted(p.name for p in site.settings("n1").directory.iterdir()) == ["data", "lock", "log"]
    async with site.member("n1") as inner:
        kv = ContinuedKV(inner)
        listing = await kv.list(keys.PREFIX)
        kept = {item.key for item in listing.items}
        assert kept == {keys.BASE, *(f"{SERVICES}{number:03}" for number in range(BURST))}
        (one, *_) = (await kv.list(SERVICES)).items
        assert (await kv.txn([Compare(one.key, one.mod_revision)], [Put(one.key, b"new")])).succeeded
        members = Members(inner.channel)
        learner = await insist(lambda: members.add_learner(site.url("n4")))
        site.start("n4", ("n1", "n4"), "existing")
        await insist(lambda: members.promote(learner))
        async with site.client("n4") as other:
            assert await insist(lambda: other.list(keys.PREFIX)) == await inner.list(keys.PREFIX)


async def test_no_version_or_epoch_of_before_is_one_of_the_new_store(site):
    site.use("n1")
    async with site.member("n1", force=True) as kv:
        old = {item.key: item.mod_revision for item in (await kv.list(keys.PREFIX)).items}
    for _ in range(2):  # a second recovery goes on from the first one's
        await found_anew(site.settings("n1"))
        async with site.member("n1") as inner:
            kv = ContinuedKV(inner)
            for item in (await kv.list(SERVICES)).items:
                assert item.mod_revision > max(old.values())
                written = await kv.txn([Compare(item.key, old[item.key])], [Put(item.key, b"stale")])
                assert not written.succeeded
            epoch = await insist(lambda kv=kv: kv.txn([Compare(keys.LEADER, 0)], [Put(keys.LEADER, b"n1")]))
            assert epoch.revision > max(old.values())
            old = {item.key: item.mod_revision for item in (await kv.list(keys.PREFIX)).items}


@pytest.mark.parametrize("point", ["store.refound.copied", "store.refound.between"])
async def test_a_kill_half_way_loses_nothing(site, point):
    where = site.settings("n1").directory
    words = [sys.executable, str(PROGRAM), str(where), str(site.pki), *map(str, site.port("n1"))]
    for armed, code in ((f"{point}:1:kill9", -9), ("", 0)):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "SWARM_FAILPOINTS": armed}
        process = await asyncio.create_subprocess_exec(*words, env=environment)
        async with asyncio.timeout(70):
            assert await process.wait() == code
    assert sorted(p.name for p in where.iterdir()) == ["data", "lock", "log"]
    async with site.member("n1") as kv:
        assert len((await kv.list(SERVICES)).items) == BURST
