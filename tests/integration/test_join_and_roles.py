"""Who gets in and who may call what, against a manager's real servers on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import aiohttp
import grpc
import pytest
from aiohttp import web
from google.protobuf import descriptor_pb2, descriptor_pool

from swarm.base.clock import FakeClock
from swarm.base.errors import FailedPrecondition, InvalidArgument, PermissionDenied, SwarmError, Unavailable
from swarm.base.ids import NodeID, TaskID, new_id
from swarm.manager.ca.join_server import WRONG_TOKENS, tls_context
from swarm.manager.ca.root import create_root
from swarm.manager.ca.tokens import add_token
from swarm.manager.logbroker import LogOptions, _Listener
from swarm.model.join_token import JoinToken
from swarm.model.objects import Cluster, JoinTokens, Node, Task, TaskStatus
from swarm.model.plan import Create, Delete, Update
from swarm.model.rotate import TokenRequest
from swarm.model.task_state import TaskState
from swarm.model.types import NodeDescription, NodeRole, NodeState
from swarm.node.joining import Application, request_identity
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.identity import new_key
from swarm.proto.rpc import make_server, open_channel, roles_of, translated
from tests.fakes.manager_site import CLOCK, free_ports, site

Code = grpc.StatusCode
DESCRIPTION = NodeDescription(data_path_address="192.0.2.7")


@pytest.fixture
async def here():
    async with site() as made:
        yield made


def stored(here):
    """What a refusal must leave alone. Not all of the store: its leader beats in it."""
    return {node.id for node in here.store.view.list(Node)}, here.cluster.root_ca


def apply_with(token, key=None, address="192.0.2.9"):
    return Application(token=token, key_pem=key or new_key(), availability="active", address=address)


# --- joining -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [61, -61, 60 * 24 * 400])
async def test_a_wrong_clock_is_refused_with_both_times(here, minutes):
    clock = FakeClock(CLOCK.now() + timedelta(minutes=minutes))
    nodes = here.store.view.list(Node)
    with pytest.raises(FailedPrecondition) as refused:
        await request_identity(here.join, apply_with(here.token()), clock)
    assert f"this host's clock says {clock.now():%Y-%m-%d %H:%M:%S} UTC" in str(refused.value)
    assert f"says {CLOCK.now():%Y-%m-%d %H:}" in str(refused.value)
    assert "set the one that is wrong" in str(refused.value)
    assert here.store.view.list(Node) == nodes


@pytest.mark.parametrize("minutes", [59, -59])
async def test_clocks_an_hour_apart_may_join(here, minutes):
    clock = FakeClock(CLOCK.now() + timedelta(minutes=minutes))
    await request_identity(here.join, apply_with(here.token()), clock)


async def test_the_worker_s_token_gives_a_worker(here):
    identity = await request_identity(here.join, apply_with(here.token()), CLOCK)
    subject = identity.subject
    node = here.store.view.get(Node, subject.node_id)
    assert subject.role is NodeRole.WORKER
    assert subject.cluster_id == here.cluster.id
    assert (node.spec.role, node.status.state) == (NodeRole.WORKER, NodeState.UNKNOWN)


async def test_a_second_manager_at_a_manager_s_address_is_refused_and_nothing_written(here):
    before = stored(here)
    with pytest.raises(InvalidArgument, match=r"is a manager at 127\.0\.0\.1 already.*swarm node rm --force"):
        await request_identity(here.join, apply_with(here.token("manager"), address="127.0.0.1"), CLOCK)
    assert stored(here) == before
    assert await request_identity(here.join, apply_with(here.token("worker"), address="127.0.0.1"), CLOCK)


async def test_the_manager_s_token_gives_a_node_that_is_to_become_one(here):
    subject = (await request_identity(here.join, apply_with(here.token("manager")), CLOCK)).subject
    node = here.store.view.get(Node, subject.node_id)
    assert (node.spec.role, node.manager_status) == (NodeRole.MANAGER, None)


async def test_a_replayed_join_gives_the_same_node(here):
    application = apply_with(here.token())
    one = await request_identity(here.join, application, CLOCK)
    two = await request_identity(here.join, application, CLOCK)
    assert one.subject.node_id == two.subject.node_id
    assert len(here.store.view.list(Node)) == 2
    together = await asyncio.gather(*(request_identity(here.join, application, CLOCK) for _ in range(5)))
    assert {i.subject.node_id for i in together} == {one.subject.node_id}


async def test_a_limited_token_lets_no_removed_node_in_again(here):
    """One that is in wrong hands still has its key, and the token it joined with."""
    cluster = here.store.view.list(Cluster)[0]
    root_ca = add_token(cluster.root_ca, TokenRequest(role=NodeRole.WORKER, uses=1), new_id, CLOCK.now())
    await here.store.commit([Update(object=replace(cluster, root_ca=root_ca))])
    application = apply_with(replace(here.token(), secret=root_ca.limited_tokens[-1].secret))
    one = await request_identity(here.join, application, CLOCK)
    two = await request_identity(here.join, application, CLOCK)
    assert one.subject.node_id == two.subject.node_id, "whose answer was lost may ask again"
    await here.store.commit([Delete(object=here.store.view.get(Node, one.subject.node_id))])
    with pytest.raises(InvalidArgument, match="could be used once and has been"):
        await request_identity(here.join, application, CLOCK)
    assert here.store.view.get(Node, one.subject.node_id) is None


async def test_wrong_tokens_change_nothing(here):
    before = stored(here)
    right = here.token()
    with pytest.raises(InvalidArgument, match="A valid join token is necessary"):
        await request_identity(here.join, apply_with(replace(right, secret="0" * 25)), CLOCK)
    async with site() as other:
        with pytest.raises(InvalidArgument, match="remote CA does not match fingerprint"):
            await request_identity(here.join, apply_with(other.token()), CLOCK)
    assert stored(here) == before


async def test_guessing_is_throttled_and_stays_so_for_right_tokens(here):
    wrong = replace(here.token(), secret="0" * 25)
    for _ in range(WRONG_TOKENS):
        with pytest.raises(InvalidArgument):
            await request_identity(here.join, apply_with(wrong), CLOCK)
    with pytest.raises(Unavailable, match="too many wrong join tokens"):
        await request_identity(here.join, apply_with(here.token()), CLOCK)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 30_000,
        b'{"token": 1}',
        b'{"token": "x", "csr": {}}',
        b'{"token": "x", "csr": "\\ud800"}',
        b'{"token": "x", "csr": "y", "availability": "sometimes"}',
        b'{"token": "x", "csr": "y", "availability": {}}',
    ],
)
async def test_malformed_requests_are_refused_in_one_line(here, body):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"https://{here.join}/v1/join", data=body, ssl=unverified()) as response,
    ):
        assert response.status == 400
        assert "\n" not in json.loads(await response.text())["message"]


async def test_a_body_without_end_is_refused(here):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"https://{here.join}/v1/join", data=b"x" * 200_000, ssl=unverified()) as response,
    ):
        assert response.status == 413


async def test_a_man_in_the_middle_who_adds_his_own_root_learns_no_token(here):
    """He tells the true root, so that the digest fits, and behind it his own, which signed his server."""
    evil = create_root(CLOCK.now(), JoinTokens())
    impostor = here.certify(NodeRole.MANAGER, root=evil)
    heard = []

    async def root(_):
        return web.Response(body=here.cluster.root_ca.ca_cert_pem + evil.ca_cert_pem)

    async def join(request):
        heard.append(await request.text())
        return web.json_response({}, status=500)

    app = web.Application()
    app.router.add_get("/v1/root", root)
    app.router.add_post("/v1/join", join)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls_context(impostor)).start()
        with pytest.raises(Unavailable, match="is no manager of the token's cluster"):
            await request_identity(f"127.0.0.1:{port}", apply_with(here.token()), CLOCK)
    finally:
        await runner.cleanup()
    assert heard == []


async def test_nobody_listens():
    (port,) = free_ports(1)
    token = JoinToken("0" * 50, "0" * 25)
    with pytest.raises(Unavailable, match=f"cannot reach a manager at 127.0.0.1:{port}"):
        await request_identity(f"127.0.0.1:{port}", apply_with(token), CLOCK)


def unverified():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- every RPC, every kind of caller -----------------------------------------------------------------------

SERVICES = tuple(pb.DESCRIPTOR.services_by_name.values())
METHODS = [(service, method) for service in SERVICES for method in service.methods]
NAMES = [f"{service.name}.{method.name}" for service, method in METHODS]


async def call(channel, service, method, wait_s=10.0):
    """One call with an empty request; the code it ended with, OK for a stream that gave something."""
    message = getattr(pb, method.input_type.name)
    path = f"/{service.full_name}/{method.name}"
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    make = kinds[method.client_streaming, method.server_streaming]
    rpc = make(
        path,
        request_serializer=message.SerializeToString,
        response_deserializer=getattr(pb, method.output_type.name).FromString,
    )
    request = iter([message()]) if method.client_streaming else message()
    try:
        started = rpc(request, timeout=wait_s)
        if method.server_streaming:
            await started.read()
            started.cancel()
        else:
            await started
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return Code.OK, ""


def roles_for(service, method):
    return roles_of((service,))[f"/{service.full_name}/{method.name}"]


async def outcome(here, identity, service, method, wait_s=10.0):
    async with open_channel(here.target, identity) as channel:
        return await call(channel, service, method, wait_s)


@pytest.mark.parametrize(("service", "method"), METHODS, ids=NAMES)
async def test_declared_roles_are_let_through(here, service, method):
    """Past the guard: what an empty request meets then is the method's own business, also to say nothing."""
    for role in roles_for(service, method):
        code, details = await outcome(here, await here.member(role), service, method, wait_s=1.0)
        assert code not in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED), details


@pytest.mark.parametrize(("service", "method"), METHODS, ids=NAMES)
async def test_strangers_are_refused(here, service, method):
    removed = await here.member(min(roles_for(service, method)))
    await here.store.commit([Delete(object=here.store.view.get(Node, removed.subject.node_id))])
    code, details = await outcome(here, removed, service, method)
    assert code is Code.PERMISSION_DENIED
    assert "has been removed from the cluster" in details

    foreign = here.certify(cluster_id="another")
    code, details = await outcome(here, foreign, service, method)
    assert code is Code.PERMISSION_DENIED
    assert "another cluster" in details

    for stranger in (
        here.certify(life=timedelta(days=1), age=timedelta(days=2)),
        replace(here.certify(root=create_root(CLOCK.now(), JoinTokens())), root_pem=here.identity.root_pem),
    ):
        code, _ = await outcome(here, stranger, service, method)
        assert code is Code.UNAVAILABLE, "the handshake fails"

    credentials = grpc.ssl_channel_credentials(here.identity.root_pem)
    options = [("grpc.ssl_target_name_override", "swarm-manager")]
    async with grpc.aio.secure_channel(here.target, credentials, options) as channel:
        assert (await call(channel, service, method))[0] is Code.UNAVAILABLE
    async with grpc.aio.insecure_channel(here.target) as channel:
        assert (await call(channel, service, method))[0] is Code.UNAVAILABLE


async def test_a_role_that_is_not_declared_is_refused(here, monkeypatch):
    monkeypatch.setattr(
        "swarm.proto.rpc.roles_of",
        lambda services: {k: frozenset({NodeRole.MANAGER}) for k in roles_of(services)},
    )
    async with site() as strict:
        for service, method in METHODS:
            code, details = await outcome(strict, await strict.member(), service, method)
            assert code is Code.PERMISSION_DENIED
            assert details == "a worker may not call this"


async def test_a_worker_s_certificate_serves_nobody_as_manager(here):
    worker = await here.member()
    server = make_server(worker, SERVICES, CLOCK, lambda _: True)
    credentials = grpc.ssl_server_credentials([(worker.key_pem, worker.cert_pem)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}", worker) as channel:
            assert (await call(channel, *METHODS[0]))[0] is Code.UNAVAILABLE
    finally:
        await server.stop(0)


def test_a_method_without_roles_cannot_be_served(here):
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="open.proto", package="test", syntax="proto3")
    file.message_type.add(name="Nothing")
    file.service.add(name="Open").method.add(
        name="Door", input_type=".test.Nothing", output_type=".test.Nothing"
    )
    pool.Add(file)
    service = pool.FindServiceByName("test.Open")
    with pytest.raises(ValueError, match=r"test\.Open\.Door does not declare who may call it"):
        make_server(here.identity, (service,), CLOCK, lambda _: True)


# --- what a member may not do ------------------------------------------------------------------------------


@asynccontextmanager
async def session(here, identity):
    """(stub, session id) of an open session."""
    async with open_channel(here.target, identity) as channel:
        stub = dispatcher_pb2_grpc.DispatcherStub(channel)
        stream = stub.Session(pb.SessionRequest(description=codec.encode(DESCRIPTION)))
        async with asyncio.timeout(5):
            welcome = await stream.read()
        yield channel, stub, welcome.session_id, stream
        stream.cancel()


async def a_task_of(here, node_id):
    task = Task(id=TaskID(new_id()), node_id=node_id, status=TaskStatus(state=TaskState.RUNNING))
    await here.store.commit([Create(object=task)])
    return task


def report(session_id, task, state=TaskState.FAILED):
    status = codec.encode(TaskStatus(state=state))
    update = pb.TaskStatusUpdate(task_id=task.id, status=status)
    return pb.UpdateTaskStatusRequest(session_id=session_id, updates=[update])


@pytest.mark.parametrize("address", ["", "nowhere", "0.0.0.0", "239.1.1.1", "fd00::1"])
async def test_an_address_that_no_packet_reaches_is_told_to_nobody(here, address):
    identity = await here.member()
    description = codec.encode(NodeDescription(data_path_address=address))
    async with open_channel(here.target, identity) as channel, asyncio.timeout(5):
        stream = dispatcher_pb2_grpc.DispatcherStub(channel).Session(
            pb.SessionRequest(description=description)
        )
        with pytest.raises(InvalidArgument, match="invalid data path address"):
            await translated(stream.read())
    assert here.store.view.get(Node, identity.subject.node_id).status.state is NodeState.UNKNOWN


async def test_reports_count_from_the_task_s_own_node_only(here):
    one, two = await here.member(), await here.member()
    task = await a_task_of(here, two.subject.node_id)
    async with (
        session(here, one) as (_, stub, session_id, _stream),
        session(here, two) as (_, theirs, their_id, _s),
    ):
        with pytest.raises(PermissionDenied, match="cannot update a task not assigned this node"):
            await translated(stub.UpdateTaskStatus(report(session_id, task)))
        with pytest.raises(SwarmError, match="the session is over"):
            await translated(stub.UpdateTaskStatus(report(their_id, task)))
        assert here.store.view.get(Task, task.id).status.state is TaskState.RUNNING
        await translated(theirs.UpdateTaskStatus(report(their_id, task)))
        assert here.store.view.get(Task, task.id).status.state is TaskState.FAILED
        await translated(theirs.UpdateTaskStatus(report(their_id, task, TaskState.RUNNING)))
        assert here.store.view.get(Task, task.id).status.state is TaskState.FAILED, "states only rise"


async def test_a_node_is_told_of_its_own_tasks_only(here):
    one, two = await here.member(), await here.member()
    mine, _ = await a_task_of(here, one.subject.node_id), await a_task_of(here, two.subject.node_id)
    async with session(here, one) as (_, stub, session_id, _stream):
        stream = stub.Assignments(pb.AssignmentsRequest(session_id=session_id))
        async with asyncio.timeout(5):
            message = await stream.read()
        stream.cancel()
    assert message.complete
    assert message.epoch > 0
    assert [u.task.id for u in message.updates if u.HasField("task")] == [mine.id]


async def test_a_newer_session_ends_the_older_one(here):
    identity = await here.member()
    async with (
        session(here, identity) as (_, old, old_id, stream),
        session(here, identity) as (_, new, new_id_, _s),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="a newer session of this node has taken over"):
            async with asyncio.timeout(5):
                await stream.read()
        with pytest.raises(SwarmError, match="the session is over"):
            await translated(old.Heartbeat(pb.HeartbeatRequest(session_id=old_id)))
        await translated(new.Heartbeat(pb.HeartbeatRequest(session_id=new_id_)))


async def test_removing_a_node_ends_its_session(here):
    identity = await here.member()
    async with session(here, identity) as (_, stub, session_id, stream):
        await here.store.commit([Delete(object=here.store.view.get(Node, identity.subject.node_id))])
        with pytest.raises(grpc.aio.AioRpcError, match="has been removed from the cluster"):
            async with asyncio.timeout(5):
                await stream.read()
        with pytest.raises(PermissionDenied):
            await translated(stub.Heartbeat(pb.HeartbeatRequest(session_id=session_id)))


async def listen(channel, broker):
    """The stream of subscriptions, once the broker knows of it."""
    stub = dispatcher_pb2_grpc.LogBrokerStub(channel)
    stream = stub.ListenSubscriptions(pb.ListenSubscriptionsRequest())
    for _ in range(500):  # the broker tells nobody
        if broker._listeners:
            break
        await asyncio.sleep(0.01)
    return stub, stream


def line(task, text, stream="stdout"):
    return pb.LogMessage(task_id=task.id, stream=stream, data=text)


async def publish(stub, subscription_id, *lines):
    message = pb.PublishLogsMessage(subscription_id=subscription_id, messages=lines, close=True)
    await translated(stub.PublishLogs(iter([message]), timeout=5))


async def test_logs_count_from_the_task_s_own_node_only(here):
    one, two = await here.member(), await here.member()
    task, other = await a_task_of(here, one.subject.node_id), await a_task_of(here, two.subject.node_id)
    broker = here.manager.logs
    async with open_channel(here.target, one) as mine, open_channel(here.target, two) as foreign:
        stub, stream = await listen(mine, broker)
        async with broker.read_tasks([task], LogOptions()) as lines:
            async with asyncio.timeout(5):
                wanted = await stream.read()
            intruder = dispatcher_pb2_grpc.LogBrokerStub(foreign)
            with pytest.raises(PermissionDenied, match="not assigned this node"):
                await publish(intruder, wanted.id, line(task, b"false"))
            with pytest.raises(SwarmError, match="not found"):
                await publish(intruder, "guessed", line(task, b"false"))
            await publish(stub, wanted.id, line(task, b"true"))
            assert [found.text async for found in lines] == [b"true"]
        async with broker.read_tasks([task], LogOptions()) as lines:
            async with asyncio.timeout(5):
                while (wanted := await stream.read()).close:
                    continue
            with pytest.raises(PermissionDenied, match="not asked for"):
                await publish(stub, wanted.id, line(other, b"false"))
        stream.cancel()


async def test_a_node_that_goes_in_the_middle_is_named(here):
    one = await here.member()
    task = await a_task_of(here, one.subject.node_id)
    broker = here.manager.logs
    async with open_channel(here.target, one) as channel:
        _, stream = await listen(channel, broker)
        async with broker.read_tasks([task], LogOptions()) as lines:
            stream.cancel()
            with pytest.raises(Unavailable, match=f"not available: {one.subject.node_id}"):
                await anext(lines)


async def test_who_follows_gets_the_rest_once_the_node_is_back_and_no_line_twice(here, monkeypatch):
    monkeypatch.setattr("swarm.manager.logbroker.RESUME_EVERY_S", 0.05)
    one = await here.member()
    task = await a_task_of(here, one.subject.node_id)
    broker = here.manager.logs

    def at(second, text):
        message = line(task, text)
        message.timestamp.FromNanoseconds(second * 10**9 + 7)
        return message

    async def send(stub, wanted, *lines):
        call = stub.PublishLogs()
        await call.write(pb.PublishLogsMessage(subscription_id=wanted.id, messages=lines))
        return call

    async with open_channel(here.target, one) as channel:
        stub, stream = await listen(channel, broker)
        async with asyncio.timeout(10), broker.read_tasks([task], LogOptions(follow=True, tail=5)) as lines:
            call = await send(stub, await stream.read(), at(1, b"a"), at(2, b"b"), at(2, b"c"))
            assert [(await anext(lines)).text for _ in range(3)] == [b"a", b"b", b"c"]
            call.cancel()
            stream.cancel()
            again = stub.ListenSubscriptions(pb.ListenSubscriptionsRequest())
            wanted = await again.read()
            assert wanted.options.since.ToSeconds() == 2
            assert not wanted.options.HasField("tail")
            call = await send(stub, wanted, at(2, b"b"), at(2, b"c"), at(2, b"d"), at(1, b"clock set back"))
            assert [(await anext(lines)).text for _ in range(2)] == [b"d", b"clock set back"]
            call.cancel()
        again.cancel()


async def test_that_a_reader_has_gone_is_told_also_to_a_node_with_much_to_read(here, monkeypatch):
    monkeypatch.setattr("swarm.manager.logbroker.LISTENER_QUEUE", 1)
    one = await here.member()
    task = await a_task_of(here, one.subject.node_id)
    listener = here.manager.logs._listeners[one.subject.node_id] = _Listener()
    async with here.manager.logs.read_tasks([task], LogOptions()):
        first = await listener.next()
        async with here.manager.logs.read_tasks([task], LogOptions()):
            pass  # never told: its opening and its end cancel out
        assert listener.open(pb.SubscriptionMessage(id="other"))
        assert not listener.open(pb.SubscriptionMessage(id="one too many"))
    assert (await listener.next()).id == "other"
    closing = await listener.next()
    assert (closing.id, closing.close) == (first.id, True)


def test_node_ids_are_not_taken_from_requests():
    """Nothing in a request can name the caller: only certificates do."""
    requests = {method.input_type.name: method.input_type.fields_by_name for _, method in METHODS}
    assert all("node_id" not in fields for fields in requests.values())
    assert NodeID(base64.b32encode(b"x").decode()) not in requests
