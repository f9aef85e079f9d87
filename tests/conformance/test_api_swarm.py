"""Membership and the cluster's settings, request by request."""

from __future__ import annotations

import pytest

from swarm.model.types import Availability
from tests.fakes.api_http import Http
from tests.fakes.fake_backend import FakeBackend


async def test_init_answers_a_bare_text(http: Http, backend: FakeBackend) -> None:
    body = {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": "10.7.0.1",
        "DataPathAddr": "",
        "DataPathPort": 0,
        "ForceNewCluster": False,
        "Spec": {
            "Labels": None,
            "Orchestration": {"TaskHistoryRetentionLimit": 3},
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {"HeartbeatPeriod": 2_000_000_000},
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "AutoLockManagers": False,
        "Availability": "drain",
        "DefaultAddrPool": ["10.0.0.0/8"],
        "SubnetSize": 24,
    }
    status, found, _ = await http.ask("POST", "/swarm/init", body)
    assert (status, found) == (200, backend.me.id)
    request = backend.swarm.inits[0]
    assert request.advertise_addr == "10.7.0.1"
    assert request.default_address_pools == ("10.0.0.0/8",)
    assert request.availability is Availability.DRAIN
    assert request.spec.task_history_retention_limit == 3
    assert request.spec.heartbeat_period.total_seconds() == 2
    status, message = await http.refused("POST", "/swarm/init", body)
    assert status == 503
    assert message.startswith("This node is already part of a swarm")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"AutoLockManagers": "yes"}, 400, "invalid AutoLockManagers: expected true or false, got text"),
        ({"Spec": "x"}, 400, "invalid Spec: expected an object"),
        ({"ListenAddr": 5}, 400, "invalid ListenAddr: expected a text, got number"),
        ({"Spec": {"CAConfig": {"NodeCertExpiry": 1}}}, 400, "minimum certificate expiry time is 1h0m0s"),
        ({"Spec": {"Dispatcher": {"HeartbeatPeriod": 10**6}}}, 400, "heartbeat time period must be at least"),
        ({"Spec": {"Dispatcher": {"HeartbeatPeriod": -1000}}}, 400, "heartbeat time period cannot be a neg"),
        ({"Spec": {"CAConfig": {"ExternalCAs": [{}]}}}, 400, "CAConfig.ExternalCAs is not supported"),
        ({"Spec": {"Raft": {"SnapshotInterval": 5}}}, 400, "Raft.SnapshotInterval is not supported"),
        ({"Availability": "gone"}, 400, 'invalid Availability: "gone"'),
    ],
)
async def test_bad_inits(http: Http, backend: FakeBackend, body, status, message) -> None:
    found = await http.refused("POST", "/swarm/init", body)
    assert found[0] == status
    assert found[1].startswith(message)
    assert not backend.swarm.inits


async def test_join_and_leave(http: Http, backend: FakeBackend) -> None:
    assert (await http.refused("POST", "/swarm/join", {"JoinToken": "x"}))[0] == 400
    body = {"RemoteAddrs": ["10.7.0.1:2377"], "JoinToken": "SWMTKN-1-a-b", "ListenAddr": "0.0.0.0:2377"}
    assert (await http.ask("POST", "/swarm/join", body))[0] == 200
    assert backend.swarm.joins[0].token.reveal() == "SWMTKN-1-a-b"
    assert "SWMTKN" not in repr(backend.swarm.joins[0])
    assert (await http.ask("POST", "/swarm/leave"))[0] == 200
    assert await http.refused("POST", "/swarm/leave") == (503, "This node is not part of a swarm")


async def test_inspect_and_rotate(http: Http, cluster: FakeBackend) -> None:
    before = await http.get("/swarm")
    assert before["JoinTokens"]["Worker"].startswith("SWMTKN-1-")
    assert before["DefaultAddrPool"] == ["10.0.0.0/8"]
    query = {"version": str(before["Version"]["Index"]), "rotateWorkerToken": "true"}
    status, found, _ = await http.ask("POST", "/swarm/update", before["Spec"], params=query)
    assert (status, found) == (200, None)
    after = await http.get("/swarm")
    assert after["JoinTokens"]["Worker"] != before["JoinTokens"]["Worker"]
    assert after["JoinTokens"]["Manager"] == before["JoinTokens"]["Manager"]
    status, message = await http.refused("POST", "/swarm/update", before["Spec"], params=query)
    assert (status, message.endswith("update out of sequence")) == (500, True)
    info = (await http.get("/info"))["Swarm"]
    assert info["ControlAvailable"] is True
    assert (info["Nodes"], info["Managers"]) == (3, 1)
    assert "JoinTokens" not in info["Cluster"]


async def test_info_outside_of_a_swarm(http: Http, backend: FakeBackend) -> None:
    assert (await http.get("/info"))["Swarm"] == {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    }


async def test_info_tells_what_the_host_s_owner_said(http: Http) -> None:
    info = await http.get("/info")
    assert info["Labels"] == ["rack=r1"]
    index = {"Name": "registry:5000", "Mirrors": [], "Secure": False, "Official": False}
    assert info["RegistryConfig"]["IndexConfigs"] == {"registry:5000": index}
