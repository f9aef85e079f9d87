"""TCP from clients on IPv6 to targets on IPv4.

In: a listening socket, targets. Out: bytes both ways, and each side's end told to the other. Where targets
expect it, a connection to them begins with a PROXY header.

Invariant: no more is held in memory for a connection than a few chunks: who reads slowly is sent slowly.

Source: HAProxy's proxy-protocol.txt, section 2.2 (version 2).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct

Target = tuple[str, int]
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CONNECT_TIMEOUT_S = 3.0
CONNECTIONS = 10_000
"""Of one port at once; more are reset."""
_CHUNK = 1 << 17
_BACKLOG = 1024
_KEEPALIVE_S = 300
"""After so long without a byte a side is asked whether it is still there."""
_RESET = struct.pack("ii", 1, 0)
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXIED, _TCP_OVER_IPV6, _ADDRESSES = 0x21, 0x21, 36
"""Version 2 and its command; what the addresses are, and how long."""


class StreamRelay:
    def __init__(self, targets: tuple[Target, ...], *, header: bool) -> None:
        self._targets = targets
        self._has_header = header
        self._turn = 0
        self._connections = 0
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(
        cls, listening: socket.socket, targets: tuple[Target, ...], *, header: bool = False
    ) -> StreamRelay:
        """With `header`, targets are told their clients. Raises: OSError when the port is taken after all."""
        made = cls(targets, header=header)
        try:
            made._server = await asyncio.start_server(
                made._relay, sock=listening, limit=_CHUNK, backlog=_BACKLOG
            )
        except OSError:
            listening.close()
            raise
        return made

    def lead_to(self, targets: tuple[Target, ...], *, header: bool = False) -> None:
        """From the next connection on."""
        self._targets, self._has_header = targets, header

    def close(self) -> None:
        """No new connection; those that stand go on."""
        if self._server is not None:
            self._server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        sides = [writer]
        try:
            _keep_alive(writer)
            there_reader, there_writer = await self._connect(writer)
            sides.append(there_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, there_writer))
                group.create_task(_pump(there_reader, writer))
        except* OSError:  # one side has failed, or no target is there: the other side is to see it
            for side in sides:
                _reset(side)
        finally:
            self._connections -= 1
            for side in sides:
                side.close()

    async def _connect(self, client: asyncio.StreamWriter) -> _Stream:
        """To the target whose turn it is; to another one where that fails. Raises: OSError."""
        if self._connections > CONNECTIONS:
            raise OSError("too many connections")
        header = _tell_client(client) if self._has_header else b""
        targets, first = self._targets, self._turn
        self._turn += 1
        for attempt in range(len(targets)):
            address, port = targets[(first + attempt) % len(targets)]
            with contextlib.suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    made = await asyncio.open_connection(address, port, limit=_CHUNK)
                _keep_alive(made[1])
                made[1].write(header)
                return made
        raise OSError("no target answers")


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK):
        sink.write(chunk)
        await sink.drain()
    sink.write_eof()


def _tell_client(writer: asyncio.StreamWriter) -> bytes:
    """The PROXY header: who came, and to which address. Raises: OSError when the client is gone already."""
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if not peer or not own:
        raise OSError("the client is gone")
    source, destination = (ipaddress.IPv6Address(end[0]).packed for end in (peer, own))
    head = struct.pack("!BBH", _PROXIED, _TCP_OVER_IPV6, _ADDRESSES)
    return _SIGNATURE + head + source + destination + struct.pack("!HH", peer[1], own[1])


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
