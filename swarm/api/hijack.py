"""A request's connection taken over: after the head of the answer, bytes go to and fro as they come.

In: a request that asks for `Upgrade: tcp`, or for a plain raw answer. Out: a reader and a writer over its
socket. Invariants: a client that shuts its writing side down still gets its output; one that is gone is
noticed at once, also when nothing is sent; the HTTP server forgets the connection when it is closed.
aiohttp may stop parsing at an upgrading request's head: then the body is read here. Source: Docker Engine
API, attach ("Hijacking").
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from swarm.base.errors import InvalidArgument

IS_LAST = web.RequestKey("is_last", bool)
"""Set on a request after which its connection is closed: an ordinary answer has to say so."""
_BODY_TIMEOUT_S = 10.0
_MAX_BODY_BYTES = 1 << 20
_READ_LIMIT = 1 << 16
_PAUSES_S = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)


class Takeover:
    """A connection that can be taken over. Until then a refusal is answered as any other."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._reader = asyncio.StreamReader(limit=_READ_LIMIT)
        self._protocol: Any = request.protocol
        self.upgrades = request.headers.get("Upgrade", "").lower() == "tcp"

    def __enter__(self) -> Takeover:
        self._request[IS_LAST] = True
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing more can be asked on this connection, also when it has not been taken over."""
        self._protocol.close()

    async def body(self) -> bytes:
        """What was posted. Raises: InvalidArgument."""
        found = await self._request.read()
        self._protocol.set_parser(_Tail(self._reader))
        missing = (self._request.content_length or 0) - len(found)
        if missing > _MAX_BODY_BYTES:
            raise InvalidArgument(f"request body is larger than {_MAX_BODY_BYTES} bytes")
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                return found + await self._reader.readexactly(max(0, missing))
        except (asyncio.IncompleteReadError, TimeoutError):
            raise InvalidArgument("the request's body is incomplete") from None

    @asynccontextmanager
    async def taken(self, content_type: str) -> AsyncIterator[Duplex]:
        """Answer with the head and be the connection's only user. Raises: ConnectionResetError."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        assert isinstance(transport, asyncio.Transport), "requests come over sockets"
        protocol = _Taken(self._reader, self._protocol)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if not transport.is_reading():
            transport.resume_reading()
        loop = asyncio.get_running_loop()
        writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        writer.write(self._head(content_type))
        peer = transport.get_extra_info("socket").fileno()
        await _until_read(peer)
        gone = asyncio.Event()
        with select.epoll() as watch:
            watch.register(peer, 0)  # hanging up is always told
            loop.add_reader(watch.fileno(), gone.set)
            try:
                yield Duplex(self._reader, writer, gone)
            finally:
                loop.remove_reader(watch.fileno())
                writer.close()

    def _head(self, content_type: str) -> bytes:
        if self.upgrades:
            lines = ["101 UPGRADED", f"Content-Type: {content_type}", "Connection: Upgrade", "Upgrade: tcp"]
        else:
            lines = ["200 OK", f"Content-Type: {content_type}"]
        return ("HTTP/1.1 " + "".join(line + "\r\n" for line in (*lines, ""))).encode()


async def _until_read(descriptor: int) -> None:
    """Wait, not for long, until the client has taken the head: docker-py loses what comes with it."""
    for pause_s in _PAUSES_S:
        unread = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        if not unread:
            return
        await asyncio.sleep(pause_s)


@dataclass(frozen=True, slots=True)
class Duplex:
    reader: asyncio.StreamReader
    """Ends when the client sends no more; it may still be there."""
    writer: asyncio.StreamWriter
    gone: asyncio.Event
    """Set when the client is not there any more."""


class Answered(web.StreamResponse):
    """What a handler returns whose connection has been answered on and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return


class _Tail:
    """Gets what the HTTP server has read beyond the request's head."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()


class _Taken(asyncio.StreamReaderProtocol):
    """In the place of the HTTP server's own protocol, which only hears of the end."""

    def __init__(self, reader: asyncio.StreamReader, server: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._server = server

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.connection_lost(exc)
