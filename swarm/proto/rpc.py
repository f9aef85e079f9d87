"""mTLS gRPC: the channel an agent uses and the server a manager runs.

Each RPC names the roles that may call it in its .proto; a method without roles cannot be served. The caller's
role, node and cluster come from its certificate alone, checked at every call and, while a stream lasts, again
and again (a connection outlives the certificate it was opened with, and the root that issued it). Errors of
ours cross as gRPC status and message, nothing else does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from swarm.base.clock import Clock
from swarm.base.errors import (
    NodeRemoved,
    PermissionDenied,
    SwarmError,
    Unauthenticated,
    Unavailable,
    from_grpc,
)
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.model.types import NodeRole
from swarm.proto.gen import options_pb2
from swarm.proto.identity import MANAGER_NAME, Identity, Subject, read_subject
from swarm.proto.roots import key_ids

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Roles = Mapping[str, frozenset[NodeRole]]

_LIMITS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
]
_SERVER_OPTIONS = [
    *_LIMITS,
    ("grpc.server.max_pending_requests", 20000),
    ("grpc.server.max_pending_requests_hard_limit", 20000),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]
_CHANNEL_OPTIONS = [
    *_LIMITS,
    ("grpc.ssl_target_name_override", MANAGER_NAME),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]

LOOK_EVERY_S = 0.5
"""How long a stream may outlive the right to it: less than a heartbeat."""

log = get_logger("rpc")
_caller: ContextVar[Subject] = ContextVar("rpc_caller")


def caller() -> Subject:
    """Who made the RPC that is being served. Only inside a servicer's method."""
    return _caller.get()


def open_channel(target: str, identity: Identity) -> grpc.aio.Channel:
    """A channel to a manager at `target` (host:port); the peer must hold a manager's certificate."""
    credentials = grpc.ssl_channel_credentials(identity.root_pem, identity.key_pem, identity.cert_pem)
    return grpc.aio.secure_channel(target, credentials, _CHANNEL_OPTIONS)


async def translated(call: Awaitable[T]) -> T:
    """Await an RPC and raise our errors instead of gRPC's."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_grpc(error.code().value[0], error.details() or error.code().name) from None


def roles_of(services: tuple[ServiceDescriptor, ...]) -> Roles:
    """Full method name -> roles. Raises ValueError for a method that declares none."""
    table: dict[str, frozenset[NodeRole]] = {}
    for service in services:
        for method in service.methods:
            roles = frozenset(NodeRole(r) for r in method.GetOptions().Extensions[options_pb2.roles])
            if not roles:
                raise ValueError(f"{service.full_name}.{method.name} does not declare who may call it")
            table[f"/{service.full_name}/{method.name}"] = roles
    return table


def make_server(
    identity: Identity,
    services: tuple[ServiceDescriptor, ...],
    clock: Clock,
    is_member: Callable[[NodeID], bool],
) -> grpc.aio.Server:
    """A server that demands a node certificate of this cluster and the declared role for every call.

    `is_member` tells whether the cluster still has the node: a certificate outlives its node's removal.
    """
    return guarded_server(Guard(services, lambda: identity, clock, is_member))


def guarded_server(guard: Guard) -> grpc.aio.Server:
    """The server behind `guard`, which ends what must not go on only while its `run` is running."""
    return grpc.aio.server(interceptors=[guard], options=_SERVER_OPTIONS)


def server_credentials(identity: Callable[[], Identity]) -> grpc.ServerCredentials:
    """Asks for the identity at each handshake, so that a renewed certificate counts at once."""

    def current() -> grpc.ServerCertificateConfiguration:
        now = identity()
        return grpc.ssl_server_certificate_configuration([(now.key_pem, now.cert_pem)], now.root_pem)

    return grpc.dynamic_ssl_server_credentials(current(), current, True)


@dataclass(frozen=True, slots=True, eq=False)
class _Stream:
    """One that is open: whose, for whom, and how to end it."""

    subject: Subject
    roles: frozenset[NodeRole]
    scope: asyncio.Timeout


class Guard(grpc.aio.ServerInterceptor):
    """Lets in who may call, and ends the streams of those who may no longer.

    Certificates count if the roots that this manager's own `identity` trusts now have issued them.
    """

    def __init__(
        self,
        services: tuple[ServiceDescriptor, ...],
        identity: Callable[[], Identity],
        clock: Clock,
        is_member: Callable[[NodeID], bool],
    ) -> None:
        self._roles = roles_of(services)
        self._identity = identity
        self._cluster_id = identity().subject.cluster_id
        self._clock = clock
        self._is_member = is_member
        self._subjects: dict[bytes, Subject] = {}
        self._streams: set[_Stream] = set()
        self._trusted: tuple[bytes, frozenset[bytes]] = (b"", frozenset())

    async def run(self) -> None:
        """End the streams of the expired and the removed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for stream in list(self._streams):
                if self._problem(stream.subject, stream.roles) is not None:
                    stream.scope.reschedule(asyncio.get_running_loop().time())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(details)
        if handler is None:
            return handler
        roles = self._roles[details.method]
        if handler.response_streaming:
            serve = self._stream(_behaviour(handler), roles)
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else (grpc.unary_stream_rpc_method_handler)
            )
        else:
            serve = self._unary(_behaviour(handler), roles, is_stream=handler.request_streaming)
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else (grpc.unary_unary_rpc_method_handler)
            )
        return make(serve, handler.request_deserializer, handler.response_serializer)

    def _unary(
        self,
        behaviour: Any,  # noqa: ANN401 - grpc handlers
        roles: frozenset[NodeRole],
        *,
        is_stream: bool,
    ) -> Any:  # noqa: ANN401
        async def serve(request: Any, context: Context) -> Any:  # noqa: ANN401
            try:
                subject = self._identify(context, roles)
                _caller.set(subject)
                if not is_stream:
                    return await behaviour(request, context)
                async with self._watched(subject, roles):
                    return await behaviour(request, context)
            except SwarmError as error:
                await _abort(context, error)

        return serve

    def _stream(self, behaviour: Any, roles: frozenset[NodeRole]) -> Any:  # noqa: ANN401
        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
            try:
                subject = self._identify(context, roles)
                _caller.set(subject)
                async with self._watched(subject, roles), aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except SwarmError as error:
                await _abort(context, error)

        return serve

    @asynccontextmanager
    async def _watched(self, subject: Subject, roles: frozenset[NodeRole]) -> AsyncIterator[None]:
        """Raises what is wrong with the caller as soon as something is."""
        try:
            async with asyncio.timeout(None) as scope:
                stream = _Stream(subject, roles, scope)
                self._streams.add(stream)
                try:
                    yield
                finally:
                    self._streams.discard(stream)
        except TimeoutError:
            raise (self._problem(subject, roles) if scope.expired() else None) or Unavailable(
                "the stream has ended"
            ) from None

    def _identify(self, context: Context, roles: frozenset[NodeRole]) -> Subject:
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        subject = self._subjects.get(pem)
        if subject is None:
            try:
                subject = read_subject(pem)
            except ValueError:
                raise Unauthenticated("a node certificate is required") from None
            if len(self._subjects) > 10_000:
                self._subjects.clear()
            self._subjects[pem] = subject
        problem = self._problem(subject, roles)
        if problem is not None:
            raise problem
        return subject

    def _problem(self, subject: Subject, roles: frozenset[NodeRole]) -> SwarmError | None:
        if subject.cluster_id != self._cluster_id:
            return PermissionDenied("the certificate is of another cluster")
        if subject.not_after <= self._clock.now():
            return Unauthenticated(
                f"the certificate of node {subject.node_id} expired at {subject.not_after}"
            )
        if subject.issuer_id not in self._trusted_ids():
            return Unauthenticated(f"the certificate of node {subject.node_id} is of a former root CA")
        if subject.role not in roles:
            return PermissionDenied(f"a {subject.role} may not call this")
        if not self._is_member(subject.node_id):
            return NodeRemoved(subject.node_id)
        return None

    def _trusted_ids(self) -> frozenset[bytes]:
        pem = self._identity().root_pem
        if self._trusted[0] != pem:
            self._trusted = (pem, key_ids(pem))
        return self._trusted[1]


def _behaviour(handler: Any) -> Any:  # noqa: ANN401 - grpc's handler tuple
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


async def _abort(context: Context, error: SwarmError) -> None:
    code = next(c for c in grpc.StatusCode if c.value[0] == error.grpc_code)
    await context.abort(code, str(error))


def certificate_problem(identity: Identity, now: datetime) -> str | None:
    """Why a peer would refuse our certificate (TLS itself tells a client nothing); None when it is fine."""
    expiry = identity.subject.not_after
    if now >= expiry:
        return (
            f"this node's certificate expired at {expiry.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: set its "
            "clock if that is wrong, or let it in again with: swarm join --token TOKEN MANAGER:2377"
        )
    return None
