"""The key-value services that one contract binds."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from swarm.base.clock import SystemClock
from swarm.manager.ca.etcd_ca import certify_member, create_etcd_ca
from swarm.store import etcd_process
from swarm.store.continued import ContinuedKV, continue_after
from swarm.store.etcd import EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings
from swarm.store.memory import MemoryKV
from tests.fakes.manager_site import free_ports


@pytest.fixture(scope="session")
async def etcd(tmp_path_factory):
    directory = tmp_path_factory.mktemp("etcd")
    patch = pytest.MonkeyPatch()  # several runs of these tests, and a swarmd, on one host
    for name, port in zip(("ETCD_CLIENT_PORT", "ETCD_PEER_PORT"), free_ports(2), strict=True):
        patch.setattr(etcd_process, name, port)
    now = SystemClock().now()
    files = certify_member(directory / "pki", create_etcd_ca(now), "127.0.0.1")
    process = EtcdProcess(
        EtcdSettings(name="n1", directory=directory / "etcd", peer_address="127.0.0.1", files=files)
    )
    running = asyncio.ensure_future(process.run())
    await process.serving()
    kv = EtcdKV(files.address())
    yield kv
    await kv.aclose()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    patch.undo()


@pytest.fixture
async def continued():
    """A service that follows a former one."""
    inner = MemoryKV()
    await continue_after(inner, 4711)
    return ContinuedKV(inner)


@pytest.fixture(params=["memory", "etcd", "continued"])
def kv(request):
    """A service; its keys may hold what earlier tests wrote, so each test uses a prefix of its own."""
    if request.param == "memory":
        return MemoryKV()
    return request.getfixturevalue(request.param)


@pytest.fixture
def prefix(request):
    return f"/{request.node.name}/"
