"""The key-value service on etcd's v3 API over grpc.aio.

Guards, each from a bug seen in the wild: a watch that stays silent although progress was asked for is given
up (a paused etcd keeps its TCP connection); a response of an older term than was known when it was asked for
is a stale member's and is refused (Patroni #2180, #3318). Reads are linearisable. Nothing is retried here:
callers know what is safe.
Source: etcd's public API; reference for its limits: 128 operations a transaction, 1.5 MiB a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio

from swarm.base.errors import NoQuorum, Unavailable
from swarm.proto.gen.etcd import kv_pb2, rpc_pb2, rpc_pb2_grpc
from swarm.store.kv import Compare, Delete, KeyValue, Listing, Put, TxnResult, WatchBatch, WatchLost, Write

CALL_TIMEOUT_S = 3.0
LIST_TIMEOUT_S = 10.0
"""For one page."""
PAGE = 2000
PROGRESS_EVERY_S = 5.0
SILENT_FOR_S = 15.0
FULL = (
    "the swarm's store has used its quota up and takes no writes until it has been compacted: "
    "see `swarm system info`"
)
T = TypeVar("T")
R = TypeVar("R", rpc_pb2.RangeResponse, rpc_pb2.TxnResponse)

_MAX_MESSAGE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAddress:
    """Where etcd serves and the client's identity there (PEM)."""

    target: str
    ca_pem: bytes
    cert_pem: bytes
    key_pem: bytes
    server_name: str = "localhost"
    """The name that the server's certificate must have; empty for the one in `target`."""


class EtcdKV:
    def __init__(self, address: EtcdAddress) -> None:
        credentials = grpc.ssl_channel_credentials(address.ca_pem, address.key_pem, address.cert_pem)
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        if address.server_name:
            options.append(("grpc.ssl_target_name_override", address.server_name))
        self._channel = grpc.aio.secure_channel(address.target, credentials, options)
        self._kv = rpc_pb2_grpc.KVStub(self._channel)
        self._watch = rpc_pb2_grpc.WatchStub(self._channel)
        self._term = 0

    @property
    def channel(self) -> grpc.aio.Channel:
        """For what is not keys and values: membership and maintenance."""
        return self._channel

    async def aclose(self) -> None:
        await self._channel.close()

    async def list(self, prefix: str) -> Listing:
        start, end = prefix.encode(), _prefix_end(prefix)
        items: list[KeyValue] = []
        revision = 0
        while True:
            request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
            response = await self._in_term(self._kv.Range(request, timeout=LIST_TIMEOUT_S))
            revision = revision or response.header.revision
            items.extend(_key_value(kv) for kv in response.kvs)
            if not response.more:
                return Listing(revision, tuple(items))
            start = response.kvs[-1].key + b"\0"

    async def revision(self) -> int:
        request = rpc_pb2.RangeRequest(key=b"/", keys_only=True)
        response = await self._in_term(self._kv.Range(request, timeout=CALL_TIMEOUT_S))
        return response.header.revision

    async def get(self, key: str) -> KeyValue | None:
        request = rpc_pb2.RangeRequest(key=key.encode())
        response = await self._in_term(self._kv.Range(request, timeout=CALL_TIMEOUT_S))
        return _key_value(response.kvs[0]) if response.kvs else None

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write]) -> TxnResult:
        request = rpc_pb2.TxnRequest(
            compare=[_compare(c) for c in compares],
            success=[_write(w) for w in writes],
            failure=[
                rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=c.key.encode(), keys_only=True))
                for c in compares
            ],
        )
        response = await self._in_term(self._kv.Txn(request, timeout=CALL_TIMEOUT_S))
        if response.succeeded:
            return TxnResult(True, response.header.revision)
        found = [
            r.response_range.kvs[0].mod_revision if r.response_range.kvs else 0 for r in response.responses
        ]
        failed = tuple(c.key for c, now in zip(compares, found, strict=True) if now != c.mod_revision)
        return TxnResult(False, response.header.revision, failed)

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        stream = self._watch.Watch()
        try:
            await self._call(stream.write(_create_request(prefix, start_revision)))
            pending: list[kv_pb2.Event] = []
            async for response in self._responses(stream):
                pending.extend(response.events)
                if not response.fragment and pending:
                    yield _batch(pending)
                    pending = []
        finally:
            stream.cancel()

    async def compact(self, revision: int) -> None:
        request = rpc_pb2.CompactionRequest(revision=revision, physical=True)
        await self._call(self._kv.Compact(request, timeout=LIST_TIMEOUT_S))

    async def _responses(
        self, stream: grpc.aio.StreamStreamCall[rpc_pb2.WatchRequest, rpc_pb2.WatchResponse]
    ) -> AsyncIterator[rpc_pb2.WatchResponse]:
        """Responses of one watch, with progress asked for when it falls silent."""
        silent, term = 0.0, self._term
        reading = asyncio.ensure_future(_read(stream))
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=PROGRESS_EVERY_S)
                if not done:
                    silent += PROGRESS_EVERY_S
                    if silent >= SILENT_FOR_S:
                        raise WatchLost("etcd has fallen silent")
                    await self._call(stream.write(_PROGRESS))
                    continue
                silent = 0.0
                response = await self._call(reading)
                reading = asyncio.ensure_future(_read(stream))
                if response.canceled or response.compact_revision:
                    raise WatchLost(response.cancel_reason or "etcd ended the watch")
                term = self._check_term(response.header, term)
                yield response
        finally:
            reading.cancel()

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from None
        except asyncio.InvalidStateError as error:
            raise WatchLost(f"etcd ended the stream: {error}") from None

    async def _in_term(self, call: Awaitable[R]) -> R:
        """Answers overtake each other when the term changes: each is held against what was known before."""
        known = self._term
        response = await self._call(call)
        self._check_term(response.header, known)
        return response

    def _check_term(self, header: rpc_pb2.ResponseHeader, known: int) -> int:
        if header.raft_term < known:
            raise WatchLost(f"etcd answered from term {header.raft_term}, before {known}: a stale member")
        self._term = max(self._term, header.raft_term)
        return header.raft_term


async def _read(
    stream: grpc.aio.StreamStreamCall[rpc_pb2.WatchRequest, rpc_pb2.WatchResponse],
) -> rpc_pb2.WatchResponse:
    response = await stream.read()
    if isinstance(response, rpc_pb2.WatchResponse):
        return response
    raise WatchLost("etcd ended the watch")


def _translate(error: grpc.aio.AioRpcError) -> Unavailable:
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.OUT_OF_RANGE:
        return WatchLost(details)
    if "database space exceeded" in details:
        return Unavailable(FULL)
    return NoQuorum(details)


def _prefix_end(prefix: str) -> bytes:
    """The first key after all that start with `prefix`."""
    raw = bytearray(prefix.encode())
    raw[-1] += 1
    return bytes(raw)


def _key_value(kv: kv_pb2.KeyValue) -> KeyValue:
    return KeyValue(kv.key.decode(), kv.value, kv.mod_revision)


def _compare(compare: Compare) -> rpc_pb2.Compare:
    return rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL,
        target=rpc_pb2.Compare.MOD,
        key=compare.key.encode(),
        mod_revision=compare.mod_revision,
    )


def _write(write: Write) -> rpc_pb2.RequestOp:
    match write:
        case Put(key=key, value=value):
            return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key.encode(), value=value))
        case Delete(key=key):
            return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key.encode()))


_PROGRESS = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())


def _create_request(prefix: str, start_revision: int) -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(
        create_request=rpc_pb2.WatchCreateRequest(
            key=prefix.encode(),
            range_end=_prefix_end(prefix),
            start_revision=start_revision,
            progress_notify=True,
            fragment=True,
        )
    )


def _batch(events: Sequence[kv_pb2.Event]) -> WatchBatch:
    """The last change of each key: a batch is applied as a whole, so what came before it is history.

    Its revision is the last event's: the response's header may already be ahead of events still to come.
    """
    last = {event.kv.key: event for event in events}
    puts = tuple(_key_value(e.kv) for e in last.values() if e.type == kv_pb2.Event.PUT)
    deletes = tuple(_key_value(e.kv) for e in last.values() if e.type == kv_pb2.Event.DELETE)
    return WatchBatch(max(e.kv.mod_revision for e in events), puts, deletes)
