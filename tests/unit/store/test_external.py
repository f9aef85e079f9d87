"""Endpoints of an etcd that others run, and going on when one of them fails."""

from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument, Unavailable
from swarm.store import external
from swarm.store.external import ExternalEtcd, FailoverKV, check_endpoints
from swarm.store.kv import Listing, TxnResult


class Member:
    def __init__(self) -> None:
        self.is_up = True
        self.calls = 0

    async def list(self, prefix):
        self._call()
        return Listing(1, ())

    async def txn(self, compares, writes):
        self._call()
        return TxnResult(True, 2)

    def _call(self):
        self.calls += 1
        if not self.is_up:
            raise Unavailable("down")


@pytest.fixture
def several(monkeypatch):
    """(kv, its three members)."""
    members = [Member() for _ in range(3)]
    made = iter(members)
    monkeypatch.setattr(external, "_connect", lambda *_: next(made))
    endpoints = tuple(f"https://10.0.0.{n}:2379" for n in range(3))
    return FailoverKV(ExternalEtcd(endpoints=endpoints, ca_pem=b"", cert_pem=b"", key_pem=b"")), members


@pytest.mark.parametrize(
    "endpoint",
    ["10.0.0.1:2379", "http://10.0.0.1:2379", "https://10.0.0.1", "https://a:b", "https://a:1/x", ""],
)
def test_an_endpoint_is_a_url_with_a_port(endpoint):
    with pytest.raises(InvalidArgument, match="it should be like https://"):
        check_endpoints([endpoint])


def test_endpoints_are_taken_as_they_are():
    assert check_endpoints(["https://a:1/", "https://[fd00::1]:2"]) == ("https://a:1", "https://[fd00::1]:2")


async def test_a_read_goes_on_at_the_next_endpoint_and_stays_there(several):
    kv, members = several
    members[0].is_up = False
    await kv.list("/")
    await kv.list("/")
    assert [m.calls for m in members] == [1, 2, 0]


async def test_a_write_is_not_repeated_but_the_next_call_goes_elsewhere(several):
    kv, members = several
    members[0].is_up = False
    with pytest.raises(Unavailable):
        await kv.txn([], [])
    assert [m.calls for m in members] == [1, 0, 0]
    await kv.txn([], [])
    assert [m.calls for m in members] == [1, 1, 0]


async def test_when_all_are_down_each_was_asked_once(several):
    kv, members = several
    for member in members:
        member.is_up = False
    with pytest.raises(Unavailable):
        await kv.list("/")
    assert [m.calls for m in members] == [1, 1, 1]
