"""Certificates over time: sessions outlive renewals, not the right to them; the root changes under load."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from swarm.base.ids import new_id
from swarm.manager.ca.certificates import counts
from swarm.manager.ca.root import create_root
from swarm.model.objects import Node
from swarm.model.plan import Create, Delete, Update
from swarm.model.rotate import TokenRequest
from swarm.model.specs import NodeSpec
from swarm.model.types import NodeDescription, NodeRole, NodeState
from swarm.node.certificates import Renewer, renew
from swarm.node.joining import Application, request_identity
from swarm.node.own_certificate import certify_itself
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.identity import new_key
from swarm.proto.roots import join_pems, key_ids
from swarm.proto.rpc import open_channel
from tests.fakes.manager_site import CLOCK, site
from tests.integration.cluster import Cluster, Probe
from tests.integration.test_agent_session import Worker, node_is, running, until

SHUT_OUT_S = 1.0 + 3.0
"""A heartbeat's period, and what a loaded machine may add."""
LOOKED_S = 1.5
"""Within it every open stream has been looked at once more."""


@pytest.fixture
async def here(monkeypatch):
    async with site() as made:
        monkeypatch.setattr("swarm.manager.dispatcher.messages.CLUSTER_PORT", int(made.target.split(":")[1]))
        yield made


async def known(here, identity):
    await here.store.commit([Create(object=Node(id=identity.subject.node_id, spec=NodeSpec()))])
    return identity


async def streams_of(here, channel):
    """One of each kind that a node keeps open, past its first message."""
    stub = dispatcher_pb2_grpc.DispatcherStub(channel)
    description = codec.encode(NodeDescription(data_path_address="192.0.2.7"))
    session = stub.Session(pb.SessionRequest(description=description))
    welcome = await session.read()
    assignments = stub.Assignments(pb.AssignmentsRequest(session_id=welcome.session_id))
    await assignments.read()
    listening = dispatcher_pb2_grpc.LogBrokerStub(channel).ListenSubscriptions(
        pb.ListenSubscriptionsRequest()
    )
    return session, assignments, listening


async def refusals(streams):
    """How each stream ends."""

    async def end(stream):
        try:
            while await stream.read() is not grpc.aio.EOF:
                continue
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the stream ended without a reason")

    return await asyncio.gather(*(end(stream) for stream in streams))


# --- who may no longer -------------------------------------------------------------------------------------


async def test_open_streams_end_when_the_certificate_does(here):
    identity = await known(here, here.certify(life=timedelta(seconds=3)))
    async with asyncio.timeout(20), open_channel(here.target, identity) as channel:
        ended = await refusals(await streams_of(here, channel))
        late = CLOCK.now() - identity.subject.not_after
    assert {error.code() for error in ended} == {grpc.StatusCode.UNAUTHENTICATED}
    assert all("expired at" in error.details() for error in ended)
    assert timedelta(0) <= late < timedelta(seconds=SHUT_OUT_S)


async def test_open_streams_end_when_the_node_is_removed(here):
    identity = await here.member()
    async with asyncio.timeout(20), open_channel(here.target, identity) as channel:
        streams = await streams_of(here, channel)
        await here.store.commit([Delete(object=here.store.view.get(Node, identity.subject.node_id))])
        async with asyncio.timeout(SHUT_OUT_S):
            ended = await refusals(streams)
    assert all("has been removed from the cluster" in error.details() for error in ended)


async def test_open_streams_end_when_their_root_is_of_the_past(here):
    identity = await here.member()
    async with asyncio.timeout(20), open_channel(here.target, identity) as channel:
        streams = await streams_of(here, channel)
        new = create_root(CLOCK.now(), here.cluster.root_ca.join_tokens)
        both = join_pems(new.ca_cert_pem, here.cluster.root_ca.ca_cert_pem)
        here.held[0] = replace(here.held[0], root_pem=both)
        later = asyncio.ensure_future(refusals(streams))
        done, _ = await asyncio.wait({later}, timeout=LOOKED_S)
        assert not done, "while both are trusted it goes on"
        here.held[0] = replace(here.held[0], root_pem=new.ca_cert_pem)
        async with asyncio.timeout(SHUT_OUT_S):
            ended = await later
    assert {error.code() for error in ended} == {grpc.StatusCode.UNAUTHENTICATED}
    assert all("is of a former root CA" in error.details() for error in ended)


async def test_a_certificate_that_is_not_valid_yet_opens_nothing(here):
    identity = await known(here, here.certify(age=-timedelta(hours=2)))
    async with asyncio.timeout(10), open_channel(here.target, identity) as channel:
        (ended,) = await refusals([dispatcher_pb2_grpc.DispatcherStub(channel).Session(pb.SessionRequest())])
    assert ended.code() is grpc.StatusCode.UNAVAILABLE


# --- renewal -----------------------------------------------------------------------------------------------


async def test_renewals_open_the_next_session_before_the_last_one_ends(here, tmp_path):
    """A certificate of seconds is renewed again and again; the node is never anything but ready."""
    worker = Worker(here, await here.member(), tmp_path)
    held = [await renew((here.target,), worker.agent._identity())]
    worker.agent._identity = lambda: held[0]
    seen = set()

    def take(identity):
        held[0] = identity
        worker.agent.use_new_certificate()

    renewer = Renewer(CLOCK, lambda: held[0], lambda: renew((here.target,), held[0]), take)
    life = replace(here.cluster.spec, node_cert_expiry=timedelta(seconds=4))
    async with running(worker):
        await until(here.store, node_is(worker, NodeState.READY))
        await here.store.commit([Update(object=replace(here.cluster, spec=life))])
        held[0] = await renew((here.target,), held[0])
        first = held[0].subject.not_after
        renewing = asyncio.ensure_future(renewer.run())
        try:
            with here.store.changes(Node) as changes:
                async with asyncio.timeout(15):
                    while held[0].subject.not_after < first + timedelta(seconds=5):
                        await changes.wait()
                        seen.add(here.store.view.get(Node, worker.node_id).status.state)
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
    assert seen == {NodeState.READY}


# --- tokens that end ---------------------------------------------------------------------------------------


async def test_a_limited_token_lets_in_as_many_as_it_says_and_labels_them(here):
    request = TokenRequest(role=NodeRole.WORKER, uses=2, labels={"zone": "a"})
    token = await here.manager.control.create_token(request)
    text = replace(here.token(), secret=token.secret)
    hosts = [Application(token=text, key_pem=new_key(), availability="active", address="") for _ in range(4)]

    async def join(host):
        try:
            return await request_identity(here.join, host, CLOCK)
        except InvalidArgument as error:
            return str(error)

    # Everyone asks twice: a repeated request counts once.
    answers = await asyncio.gather(*(join(host) for host in hosts for _ in range(2)))
    refused = [answer for answer in answers if isinstance(answer, str)]
    joined = {answer.subject.node_id for answer in answers if not isinstance(answer, str)}
    assert len(joined) == 2
    assert len(refused) == 4
    assert set(refused) == {
        "the join token could be used 2 times and has been: ask a manager for another one"
    }
    assert all(here.store.view.get(Node, node_id).spec.labels == {"zone": "a"} for node_id in joined)
    assert len(here.store.view.list(Node)) == 3
    assert here.cluster.root_ca.limited_tokens[0].used_by == tuple(
        sorted(joined, key=here.cluster.root_ca.limited_tokens[0].used_by.index)
    )


async def test_joining_again_does_not_change_a_role(here):
    key = new_key()
    one = await request_identity(
        here.join, Application(token=here.token(), key_pem=key, availability="active", address=""), CLOCK
    )
    manager = Application(token=here.token("manager"), key_pem=key, availability="active", address="")
    assert (
        (await request_identity(here.join, manager, CLOCK)).subject.role
        is one.subject.role
        is NodeRole.WORKER
    )


async def test_a_worker_s_token_does_not_certify_a_manager(here):
    key = new_key()
    await request_identity(
        here.join,
        Application(token=here.token("manager"), key_pem=key, availability="active", address="192.0.2.9"),
        CLOCK,
    )
    lesser = Application(token=here.token(), key_pem=key, availability="active", address="192.0.2.9")
    with pytest.raises(InvalidArgument, match="is a manager, which a worker's token does not let in"):
        await request_identity(here.join, lesser, CLOCK)


async def test_the_token_that_a_node_came_in_by_does_not_certify_it_once_it_is_a_manager(here):
    token = await here.manager.control.create_token(TokenRequest(role=NodeRole.WORKER, uses=1))
    text = replace(here.token(), secret=token.secret)
    host = Application(token=text, key_pem=new_key(), availability="active", address="")
    node_id = (await request_identity(here.join, host, CLOCK)).subject.node_id
    node = here.store.view.get(Node, node_id)
    await here.store.commit([Update(object=replace(node, spec=replace(node.spec, role=NodeRole.MANAGER)))])
    with pytest.raises(InvalidArgument, match="is a manager, which a worker's token does not let in"):
        await request_identity(here.join, host, CLOCK)


# --- a manager that nobody can renew -----------------------------------------------------------------------


async def test_a_manager_signs_its_own_certificate(here):
    renewed = await certify_itself(here.store, here.identity, CLOCK)
    assert renewed.subject.node_id == here.identity.subject.node_id
    assert counts(renewed, CLOCK.now())
    with pytest.raises(PermissionDenied, match="is not a manager of the swarm any more"):
        await certify_itself(here.store, here.certify(NodeRole.MANAGER), CLOCK)


@pytest.mark.parametrize(("hours", "signs"), [(0.9, True), (1.1, False), (-1.1, False), (24 * 400, False)])
async def test_a_clock_that_another_manager_contradicts_signs_nothing(here, hours, signs):
    """The same store, seen by a second manager; the first answers at its join port."""
    other = await here.member(NodeRole.MANAGER)
    clock = FakeClock(CLOCK.now() + timedelta(hours=hours))
    if signs:
        assert counts(await certify_itself(here.store, other, clock), clock.now())
        return
    with pytest.raises(FailedPrecondition, match=r"this host's clock says .*set the one that is wrong"):
        await certify_itself(here.store, other, clock)


async def test_managers_that_are_off_have_no_say(here):
    other = await here.member(NodeRole.MANAGER)
    await here.stop()
    assert counts(await certify_itself(here.store, other, CLOCK), CLOCK.now())


# --- another root, on a lab --------------------------------------------------------------------------------


def pids(cluster: Cluster) -> dict[str, int]:
    return {t["ID"]: t["Status"]["ContainerStatus"]["PID"] for t in cluster.running("web")}


@pytest.mark.root
def test_the_root_is_replaced_under_load(cluster: Cluster) -> None:
    first = cluster.hosts[0]
    cluster.create("web", "--replicas", "4", "-p", "8080:80")
    cluster.wait_running("web", 4)
    before, roots, tokens = pids(cluster), cluster.swarm(first, "ca"), cluster.get("/swarm")["JoinTokens"]
    with Probe(cluster.lab.address(first), 8080) as probe:
        said = cluster.swarm(first, "ca", "--rotate", timeout=30)
        cluster.docker(first, "swarm", "ca", "--rotate", "--quiet", timeout=30)
    assert "rotated TLS certificates:  3/3 nodes" in said
    assert "rotated CA certificates:   3/3 nodes" in said
    assert probe.failures == []
    assert pids(cluster) == before, "no task was touched"
    after = cluster.get("/swarm")
    assert not after["RootRotationInProgress"]
    assert after["TLSInfo"]["TrustRoot"].strip() not in (roots.strip(), said)
    assert set(after["JoinTokens"].values()).isdisjoint(tokens.values())
    assert {n["Description"]["TLSInfo"]["TrustRoot"] for n in cluster.get("/nodes")} == {
        after["TLSInfo"]["TrustRoot"]
    }
    refused = cluster.refused(
        first, "join", "--token", tokens["Worker"], f"{cluster.lab.address(first)}:2377"
    )
    assert "already part of a swarm" in refused
    assert cluster.docker(first, "node", "ls", "--format", "{{.TLSStatus}}").split() == ["Ready"] * 3
    assert key_ids(after["TLSInfo"]["TrustRoot"].encode()).isdisjoint(key_ids(roots.encode()))


@pytest.mark.root
def test_a_node_that_is_down_is_named_and_catches_up(cluster: Cluster) -> None:
    first, second, third = cluster.hosts
    cluster.lab.kill(third)
    cluster.wait_until(lambda: cluster.node_states()[third] == "down", f"{third} is down")
    cluster.swarm(first, "ca", "--rotate", "-d")
    waits = f"waiting for {third}: it is down (bring it back, or remove it with: swarm node rm"
    # A second one replaces it; it is left once it has said what it waits for.
    script = f"timeout 20 swarm ca --rotate | grep -m 1 -F '{waits}'"
    assert waits in cluster.output(first, "sh", "-c", script)
    assert cluster.get("/swarm")["RootRotationInProgress"]
    desired = cluster.get("/swarm")["TLSInfo"]

    def has_moved(host: str) -> bool:
        node = next(n for n in cluster.get("/nodes") if n["Description"]["Hostname"] == host)
        issuer: str = node["Description"]["TLSInfo"]["CertIssuerPublicKey"]
        return issuer == desired["CertIssuerPublicKey"]

    cluster.wait_until(lambda: has_moved(second), f"{second} has a certificate of the new root meanwhile")
    assert not has_moved(third)
    warning = f"WARNING: the rotation of the root CA waits for {third}"
    assert any(text.startswith(warning) for text in cluster.get("/info")["Warnings"])
    cluster.lab.start(third)
    cluster.wait_until(lambda: not cluster.get("/swarm")["RootRotationInProgress"], "the rotation ends", 30)
    desired = cluster.get("/swarm")["TLSInfo"]
    cluster.wait_until(
        lambda: all(n["Description"]["TLSInfo"] == desired for n in cluster.get("/nodes")), "all have moved"
    )


@pytest.mark.root
def test_settings_reach_nodes_and_limits_hold(cluster: Cluster) -> None:
    first = cluster.hosts[0]
    assert "minimum certificate expiry time is 1h0m0s" in cluster.refused(
        first, "update", "--cert-expiry", "59m"
    )
    cluster.swarm(first, "update", "--cert-expiry", "48h", "--task-history-limit", "2")
    spec = cluster.get("/swarm")["Spec"]
    assert spec["CAConfig"]["NodeCertExpiry"] == 48 * 3600 * 10**9
    assert spec["Orchestration"]["TaskHistoryRetentionLimit"] == 2
    read = "openssl x509 -checkend 180000 -noout -in /var/lib/swarm/node/node.crt || echo short"
    cluster.wait_until(
        lambda: all(
            "short" in out.stdout
            for out in cluster.on_all(lambda h: cluster.run(h, "sh", "-c", read)).values()
        ),
        "every node has a certificate of 48 hours",
    )
    assert "its own labels" in cluster.refused(first, "join", "--label", "a=b", "--token", new_id(), "x:2377")
