"""Questions of tasks about other names, asked of the servers that their task or host names.

In: a query as it came. Out: the server's answer as it came, under the query's id; or SERVFAIL.

Invariant: an answer is taken only from the server asked, at the port that asked, for the id and the question
that were sent; the ids are random. Nothing waits for ever, and no flood is passed on.

Source: RFC 1035 §7; RFC 5452 for what to check.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Sequence

from swarm.overlay.dns import wire

_PATIENCE_S = 2.0
"""For one server; then the next is asked."""
_ATTEMPTS = 3
_AT_ONCE = 512
_PORT = 53
_LARGEST_REPLY = 65535

Send = Callable[[bytes], None]


class Forwarder:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._asking = 0

    def ask(self, data: bytes, query: wire.Query, servers: Sequence[str], send: Send) -> None:
        """Ask over UDP and `send` the answer when it comes."""
        if self._asking >= _AT_ONCE:
            send(_failure(query))
            return
        self._asking += 1
        self._group.create_task(self._ask(data, query, servers, send))

    async def ask_stream(self, data: bytes, query: wire.Query, servers: Sequence[str]) -> bytes:
        """Ask over TCP."""
        for server in servers[:_ATTEMPTS]:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    return await _ask_over_tcp(server, data, query)
        return _failure(query)

    async def _ask(self, data: bytes, query: wire.Query, servers: Sequence[str], send: Send) -> None:
        try:
            for attempt in range(_ATTEMPTS if servers else 0):
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(_PATIENCE_S):
                        send(await _ask_over_udp(servers[attempt % len(servers)], data, query))
                        return
            send(_failure(query))
        finally:
            self._asking -= 1


async def _ask_over_udp(server: str, data: bytes, query: wire.Query) -> bytes:
    loop = asyncio.get_running_loop()
    number = secrets.token_bytes(2)
    with socket.socket(_family(server), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        await loop.sock_connect(channel, (server, _PORT))
        await loop.sock_sendall(channel, number + data[2:])
        while True:
            reply = await loop.sock_recv(channel, _LARGEST_REPLY)
            if reply[:2] == number and _answers(reply, query):
                return data[:2] + reply[2:]


async def _ask_over_tcp(server: str, data: bytes, query: wire.Query) -> bytes:
    number = secrets.token_bytes(2)
    reader, writer = await asyncio.open_connection(server, _PORT)
    try:
        writer.write(len(data).to_bytes(2, "big") + number + data[2:])
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if reply[:2] != number or not _answers(reply, query):
        raise OSError(f"{server} answered another question")
    return data[:2] + reply[2:]


def _answers(reply: bytes, query: wire.Query) -> bool:
    """It is an answer, and to this question; a refusal may leave the question out."""
    is_answer = len(reply) >= 12 and bool(reply[2] & 0x80)
    asked = reply[12 : 12 + len(query.question)]
    return is_answer and (asked.lower() == query.question.lower() or reply[4:6] == b"\0\0")


def _failure(query: wire.Query) -> bytes:
    return wire.build_answer(query, (), limit=wire.SMALLEST_DATAGRAM, code=wire.SERVER_FAILURE)


def _family(server: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server else socket.AF_INET
