"""The agent: holds a session with a manager, does what it is assigned, reports what became of it.

A lost manager stops nothing: tasks run on, the agent looks for another manager and takes up where it was.
Order within one assignment: first the network, so that a stopping task has left the balancer of this host
before it is told to stop, and a starting one finds its networks; and secrets before the tasks that use them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import grpc
import grpc.aio

from swarm.base.aio import in_own_task
from swarm.base.clock import Clock
from swarm.base.errors import (
    FailedPrecondition,
    NodeRemoved,
    PermissionDenied,
    SwarmError,
    Unauthenticated,
    Unavailable,
    from_grpc,
)
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.model.exclusive import BEAT_AT_LEAST_EVERY_S
from swarm.model.host_offer import HostOffer
from swarm.model.objects import Node
from swarm.model.types import NodeDescription, TunnelKey
from swarm.overlay.data_path import DataPath
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.identity import Identity
from swarm.proto.roots import CertificateTerms
from swarm.proto.rpc import certificate_problem, open_channel, translated
from swarm.worker.assignments import NO_CHANGES, Assignments
from swarm.worker.execs import Execs
from swarm.worker.fence import Fence
from swarm.worker.host import describe_host
from swarm.worker.journal import Journal
from swarm.worker.log_publisher import LogPublisher
from swarm.worker.payloads import Payloads
from swarm.worker.reporter import Reporter
from swarm.worker.tasks import Tasks
from swarm.worker.usage import UsageReporter

BACKOFF_FIRST_S = 0.1
BACKOFF_LIMIT_S = 2.0
CONNECT_TIMEOUT_S = 2.0
OPEN_TIMEOUT_S = 5.0
END_TIMEOUT_S = 2.0
BEAT_TIMEOUT_S = 1.0
VERIFY_EVERY_S = 3.0


log = get_logger("agent")


class _SessionStream:
    """What a manager tells in a session. Unlike gRPC's own, it outlives a reader that is cancelled."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[pb.SessionRequest, pb.SessionMessage]) -> None:
        self._call = call
        self._reading: asyncio.Future[object] | None = None

    async def read(self) -> object:
        """The next message, or what gRPC says when there is none. Raises: AioRpcError."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._next())
        await asyncio.wait({self._reading})
        done, self._reading = self._reading, None
        found = done.result()
        if isinstance(found, grpc.aio.AioRpcError):
            raise found
        return found

    async def close(self) -> None:
        """End the session on this side."""
        self._call.cancel()
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def _next(self) -> object:
        """A failure is returned: nobody may be there any more to hear of it."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            return error


class _Recertified(Exception):
    """Not an error: the session is to go on under the node's new certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentParts:
    tasks: Tasks
    network: DataPath
    journal: Journal
    payloads: Payloads
    reporter: Reporter
    logs: LogPublisher
    execs: Execs
    usage: UsageReporter
    fence: Fence
    offer: HostOffer
    clock: Clock
    store_trouble: Callable[[], tuple[str, str]]
    """What is wrong with this node's member of the managers' store: a word and a sentence, or nothing."""
    home: Callable[[], str]
    """Where this node itself serves as a manager, host:port; empty while it does not."""
    remember: Callable[[tuple[str, ...]], None]
    """Told of the managers that a manager names."""
    told: Callable[[Node], None]
    """Told of this node's record (role, labels) whenever it changes."""
    certify: Callable[[CertificateTerms], None]
    """Told what this node's certificate should be like."""


class Agent:
    def __init__(
        self,
        parts: AgentParts,
        identity: Callable[[], Identity],
        managers: tuple[str, ...],
        data_path_address: str,
    ) -> None:
        """`managers` are host:port of any managers known."""
        self._parts = parts
        self._identity = identity
        # Some other one than the last: sessions spread over all managers.
        self._managers = sorted(managers, key=lambda _: random.random())  # noqa: S311
        self._generation = parts.journal.load_generation()
        self._data_path_address = data_path_address
        self._assignments = Assignments(epoch=parts.journal.load_epoch())
        self._network_changed = asyncio.Event()
        self._connected = asyncio.Event()
        self._certified = asyncio.Event()
        self._told_keys: tuple[TunnelKey, ...] = ()
        self._told_trouble = ("", "")
        self._previous = AsyncExitStack()
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()
        self._comes_back = False
        self._problem = ""

    @property
    def managers(self) -> tuple[str, ...]:
        return tuple(self._managers)

    @property
    def generation(self) -> int:
        """Of the cluster, as managers have told it last."""
        return self._generation

    @property
    def problem(self) -> str:
        """Why there is no session; empty while there is one."""
        return self._problem

    async def connected(self) -> None:
        """Wait until the first session is open."""
        await self._connected.wait()

    def use_new_certificate(self) -> None:
        """The identity is another one now: open a session with it, and only then end the present one."""
        self._certified.set()

    async def end_session(self, *, comes_back: bool) -> None:
        """Tell the manager that this node goes, and have no session from then on; best effort."""
        self._comes_back = comes_back
        self._ending.set()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._ended.wait()
        except TimeoutError:
            log.info("session.not.ended", reason=self._problem)

    async def run(self) -> None:
        await self._parts.tasks.adopted()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mend_network())
            group.create_task(self._parts.fence.run())
            await self._keep_session()

    async def _keep_session(self) -> None:
        backoff, lost = BACKOFF_FIRST_S, ""
        while not self._ending.is_set():
            home = self._parts.home()
            if home != lost:  # a manager that is cut off from the others must not keep its own node
                self._managers.sort(key=lambda target: target != home)
            opened = asyncio.Event()
            try:
                await in_own_task(self._session(self._managers[0], opened))
            except* _Recertified:
                log.info("session.renewed")
            except* (SwarmError, grpc.aio.AioRpcError, OSError, asyncio.InvalidStateError) as errors:
                leaves = _leaves(errors)
                self._problem = self._explain(leaves)
                if any(isinstance(error, NodeRemoved) for error in leaves):
                    self._parts.tasks.keep_only(frozenset())  # others run them now
                    self._parts.payloads.hold({})
            if self._certified.is_set() and not self._problem:
                continue
            log.warning("session.lost", manager=self._managers[0], reason=self._problem)
            if opened.is_set():
                backoff = BACKOFF_FIRST_S
            lost = self._managers.pop(0)
            self._managers.append(lost)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            backoff = min(backoff * 2, BACKOFF_LIMIT_S)
        self._ended.set()

    async def _session(self, manager: str, opened: asyncio.Event) -> None:
        self._certified.clear()
        identity = self._identity()
        previous, self._previous = self._previous, AsyncExitStack()
        async with previous, AsyncExitStack() as stack:
            channel = await stack.enter_async_context(open_channel(manager, identity))
            try:
                await _reach(channel)
                stub: dispatcher_pb2_grpc.DispatcherAsyncStub = dispatcher_pb2_grpc.DispatcherStub(channel)
                description = self._describe(identity)
                stream = _SessionStream(
                    stub.Session(pb.SessionRequest(description=codec.encode(description)))
                )
                stack.push_async_callback(stream.close)
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    welcome = await stream.read()
                if not isinstance(welcome, pb.SessionMessage):
                    raise Unavailable("the manager ended the session")
                self._check_generation(welcome.generation)
                await previous.aclose()
                opened.set()
                self._welcomed(manager, welcome)
                log.info("session.open", manager=manager)
                failpoint("agent.session.open")
                await self._hold(manager, channel, stream, welcome)
            except* _Recertified:
                self._previous = stack.pop_all()
                raise

    async def _hold(
        self, manager: str, channel: grpc.aio.Channel, stream: _SessionStream, welcome: pb.SessionMessage
    ) -> None:
        """Everything that goes on while the session lasts."""
        stub: dispatcher_pb2_grpc.DispatcherAsyncStub = dispatcher_pb2_grpc.DispatcherStub(channel)
        broker: dispatcher_pb2_grpc.LogBrokerAsyncStub = dispatcher_pb2_grpc.LogBrokerStub(channel)
        book: dispatcher_pb2_grpc.UsageBookAsyncStub = dispatcher_pb2_grpc.UsageBookStub(channel)
        session_id = welcome.session_id
        beaten = asyncio.Event()
        self._parts.reporter.put_all(self._parts.tasks.list())
        async with asyncio.TaskGroup() as group:
            for work in (
                self._beat(stub, session_id, beaten),
                self._follow(stub, session_id, beaten),
                self._parts.reporter.run(stub, session_id),
                self._parts.logs.run(broker),
                self._parts.execs.serve(dispatcher_pb2_grpc.ExecBrokerStub(channel)),
                self._parts.usage.run(book),
                self._listen(manager, stream),
                self._end(stub, session_id),
                self._recertify(),
            ):
                group.create_task(work)

    async def _recertify(self) -> None:
        await self._certified.wait()
        raise _Recertified

    async def _end(self, stub: dispatcher_pb2_grpc.DispatcherAsyncStub, session_id: str) -> None:
        await self._ending.wait()
        request = pb.EndSessionRequest(session_id=session_id, comes_back=self._comes_back)
        await translated(stub.EndSession(request, timeout=END_TIMEOUT_S))
        self._ended.set()
        raise Unavailable("this node has ended the session")

    def _welcomed(self, manager: str, welcome: pb.SessionMessage) -> None:
        others = [m for m in welcome.managers if m != manager]
        self._managers = [manager, *others]
        self._parts.remember(tuple(self._managers))
        self._parts.told(codec.decode(Node, welcome.node))
        if welcome.HasField("certificate"):
            terms = welcome.certificate
            life = terms.life.ToTimedelta()
            self._parts.certify(CertificateTerms(terms.trust_pem, terms.issuer_pem, life))
        self._problem = ""
        self._connected.set()

    async def _listen(self, manager: str, stream: _SessionStream) -> None:
        """Take what the manager tells meanwhile; a new manager draws its share of the nodes."""
        while isinstance(message := await stream.read(), pb.SessionMessage):
            self._check_generation(message.generation)
            fresh = [m for m in message.managers if m not in self._managers]
            self._welcomed(manager, message)
            if fresh and manager != self._parts.home() and random.random() < 1 / len(self._managers):  # noqa: S311
                others = [m for m in self._managers if m != manager and m not in fresh]
                self._managers = [manager, *fresh, *others]
                raise Unavailable(f"moving to the new manager {fresh[0]}")
        raise Unavailable("the manager ended the session")

    def _check_generation(self, generation: int) -> None:
        """A manager from before the cluster was recovered must not be heard."""
        if generation < self._generation:
            raise PermissionDenied("the manager is of a cluster that has been recovered without it")
        if generation != self._generation:
            self._generation = generation
            self._assignments.epoch = 0
            self._parts.journal.save_epoch(0)
            self._parts.journal.save_generation(generation)

    async def _beat(
        self, stub: dispatcher_pb2_grpc.DispatcherAsyncStub, session_id: str, beaten: asyncio.Event
    ) -> None:
        while True:
            asked_at = self._parts.clock.monotonic()
            request = pb.HeartbeatRequest(session_id=session_id)
            response = await translated(stub.Heartbeat(request, timeout=BEAT_TIMEOUT_S))
            if response.gives_word:
                await self._parts.fence.renew(asked_at)
            beaten.set()
            if self._parts.store_trouble() != self._told_trouble:
                self._certified.set()  # it is told of when a session opens
            period_s = response.period.ToTimedelta().total_seconds()
            await asyncio.sleep(
                min(period_s, BEAT_AT_LEAST_EVERY_S) if self._parts.fence.is_used else period_s
            )

    async def _follow(
        self, stub: dispatcher_pb2_grpc.DispatcherAsyncStub, session_id: str, beaten: asyncio.Event
    ) -> None:
        await beaten.wait()  # exclusive tasks are taken on under a manager's word
        self._assignments.begin()
        async for message in stub.Assignments(pb.AssignmentsRequest(session_id=session_id)):
            known = self._assignments.epoch
            changes = self._assignments.take(message)
            if changes is None:
                log.warning("assignments.refused", epoch=message.epoch, known=known)
                raise FailedPrecondition("the manager follows a deposed leader")
            if changes is NO_CHANGES:
                continue
            failpoint("agent.assignments.taken")
            if self._assignments.epoch != known:
                self._parts.journal.save_epoch(self._assignments.epoch)
            self._parts.payloads.hold(self._assignments.payloads)
            if changes.network_changed:
                await self._apply_network()
            for task in changes.assigned:
                if self._parts.tasks.get(task.id) is None:
                    self._parts.fence.arm(task)
                self._parts.tasks.assign(task)
            if changes.is_complete:
                self._parts.tasks.keep_only(frozenset(t.id for t in changes.assigned))
            self._parts.tasks.withdraw(changes.withdrawn)
            failpoint("agent.assignments.done")
        raise FailedPrecondition("the manager ended the assignments")

    def _describe(self, identity: Identity) -> NodeDescription:
        network = self._parts.network
        self._told_keys = network.tunnel_keys
        self._told_trouble = state, problem = self._parts.store_trouble()
        return replace(
            describe_host(identity, self._data_path_address, self._parts.offer),
            tunnel_keys=network.tunnel_keys,
            encryption_problem=network.encryption_problem,
            store_state=state,
            store_problem=problem,
        )

    async def _apply_network(self) -> None:
        try:
            await self._parts.network.apply(self._assignments.data_plane())
            if self._parts.network.tunnel_keys != self._told_keys:
                self._certified.set()  # it is told of when a session opens
        except (SwarmError, OSError) as error:
            log.warning("network.unapplied", reason=str(error))
        except Exception:  # a network that cannot be made must not stop the tasks that need none
            log.exception("network.unapplied")

    async def _mend_network(self) -> None:
        while True:
            await asyncio.sleep(VERIFY_EVERY_S)
            try:
                await self._parts.network.verify()
            except (SwarmError, OSError) as error:
                log.warning("network.unverified", reason=str(error))
            except Exception:
                log.exception("network.unverified")

    def _explain(self, errors: list[BaseException]) -> str:
        problem = certificate_problem(self._identity(), self._parts.clock.now())
        if problem is not None:
            return problem
        told = (error for error in errors if isinstance(error, (PermissionDenied, Unauthenticated)))
        return str(next(told, errors[0]))


async def _reach(channel: grpc.aio.Channel) -> None:
    """A host that is off answers nothing: its port is given up soon. One that refuses fails the next call."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            state = channel.get_state(try_to_connect=True)
            while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise Unavailable("the manager does not answer") from None


def _leaves(error: BaseException) -> list[BaseException]:
    """What a session broke on, as our own errors where a manager's answer is one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    if isinstance(error, grpc.aio.AioRpcError):
        return [from_grpc(error.code().value[0], error.details() or error.code().name)]
    return [error]
