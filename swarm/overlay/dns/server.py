"""The sockets of the name server, a pair in each task's network namespace, and the answers to what comes in.

In: tasks that come and go, their views. Out: answers, from memory as long as nothing has changed.

Invariant: this process has one thread, and no task's socket is ever opened outside of that task's namespace.
A flood from one task delays the others by a handful of answers at most.

Source: setns(2); RFC 7766 for TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import socket
from dataclasses import dataclass, field

from swarm.overlay.dns import wire
from swarm.overlay.dns.answers import View, answer
from swarm.overlay.dns.forward import Forwarder
from swarm.overlay.names import RESOLVER, RESOLVER_PORT

_CLONE_NEWNET = 0x40000000
_BATCH = 32
"""Datagrams taken from one socket before the others have their turn."""
_REMEMBERED = 2048
"""Answers remembered per task: any number of names can be made up."""
_TURNS = 16
"""Orders in which several addresses are given, one after the other."""
_IDLE_S = 10.0
"""For a client that says nothing over TCP."""
_STREAMS = 64
"""TCP clients of one task at once."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Listener:
    task_id: str
    netns: int
    """The namespace's inode: a path may be taken by another."""
    datagrams: socket.socket
    streams: asyncio.Server
    view: View
    forward_to: tuple[str, ...]
    """Servers for what the view does not know."""
    remembered: dict[bytes, list[bytes]] = field(default_factory=dict)
    """Question, as it came but for its id, to answers without their id; the first is the next one's."""
    connections: int = 0


class Server:
    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._listeners: dict[str, _Listener] = {}
        self._own_netns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self, task_id: str) -> None:
        listener = self._listeners.pop(task_id, None)
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener.datagrams)
            listener.datagrams.close()
            listener.streams.close()

    def list_tasks(self) -> list[str]:
        return list(self._listeners)

    async def serve(self, task_id: str, path: str, view: View, forward_to: tuple[str, ...]) -> None:
        """Answer the task from `view` from now on. Raises: OSError when its namespace is gone."""
        inode = os.stat(path).st_ino
        listener = self._listeners.get(task_id)
        if listener is not None and listener.netns == inode:
            if (listener.view, listener.forward_to) != (view, forward_to):
                listener.view, listener.forward_to = view, forward_to
                listener.remembered.clear()
            return
        self.close(task_id)
        datagrams, accepting = self._open_inside(path)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._talk(made, reader, writer)

        streams = await asyncio.start_server(talk, sock=accepting)
        made = _Listener(task_id, inode, datagrams, streams, view, forward_to)
        self._listeners[task_id] = made
        asyncio.get_running_loop().add_reader(datagrams, self._take, made)

    def _open_inside(self, path: str) -> tuple[socket.socket, socket.socket]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(descriptor)
            try:
                return _open(socket.SOCK_DGRAM), _open(socket.SOCK_STREAM)
            finally:
                _enter(self._own_netns)
        finally:
            os.close(descriptor)

    def _take(self, listener: _Listener) -> None:
        """Answer what has come. Called again at once while there is more."""
        datagrams, remembered = listener.datagrams, listener.remembered
        try:
            for _ in range(_BATCH):
                data, client = datagrams.recvfrom(wire.LARGEST_DATAGRAM)
                known = remembered.get(data[2:])
                if known is None:
                    self._answer(listener, data, client)
                    continue
                datagrams.sendto(data[:2] + known[0], client)
                if len(known) > 1:
                    known.append(known.pop(0))
        except OSError:  # nothing more for now, or the client has gone
            return

    def _answer(self, listener: _Listener, data: bytes, client: tuple[str, int]) -> None:
        def send(reply: bytes) -> None:
            if reply:
                with contextlib.suppress(OSError):
                    listener.datagrams.sendto(reply, client)

        try:
            query = wire.parse_query(data)
        except wire.WireError:
            send(wire.build_refusal(data, wire.FORMAT_ERROR))
            return
        replies = self._replies(listener.view, query, query.takes)
        if replies is None:
            self._forwarder.ask(data, query, listener.forward_to, send)
            return
        if len(listener.remembered) >= _REMEMBERED:
            listener.remembered.clear()
        listener.remembered[data[2:]] = [reply[2:] for reply in replies]
        send(replies[0])

    def _replies(self, view: View, query: wire.Query, limit: int) -> list[bytes] | None:
        """The answer in each order that it is given in; None when it is to be asked elsewhere."""
        if not wire.is_standard(query):
            return [wire.build_answer(query, (), limit=limit, code=wire.NOT_IMPLEMENTED)]
        found = answer(view, query.name, query.kind)
        if found is None:
            return None
        turns = range(0, max(len(found.data), 1), max(len(found.data) // _TURNS, 1))
        orders = [(*found.data[n:], *found.data[:n]) for n in turns]
        return [wire.build_answer(query, data, limit=limit, code=found.code) for data in orders]

    async def _talk(
        self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Questions and answers over TCP, one after the other."""
        listener.connections += 1
        try:
            while listener.connections <= _STREAMS:
                async with asyncio.timeout(_IDLE_S):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(length)
                    reply = await self._answer_stream(listener, data)
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError, wire.WireError):
            return
        finally:
            listener.connections -= 1
            writer.close()

    async def _answer_stream(self, listener: _Listener, data: bytes) -> bytes:
        query = wire.parse_query(data)
        replies = self._replies(listener.view, query, wire.LARGEST_MESSAGE)
        if replies is not None:
            return replies[secrets.randbelow(len(replies))]
        return await self._forwarder.ask_stream(data, query, listener.forward_to)


def _open(kind: socket.SocketKind) -> socket.socket:
    opened = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if kind is socket.SOCK_STREAM:  # else connections of a former server would bar the port for a minute
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((RESOLVER, RESOLVER_PORT))
    except OSError:
        opened.close()
        raise
    return opened


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
