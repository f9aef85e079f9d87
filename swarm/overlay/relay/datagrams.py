"""UDP from clients on IPv6 to targets on IPv4.

In: a bound socket that tells where each datagram was sent to, targets. Out: datagrams both ways. A flow is
what one client sends to one address of this host; it keeps its target while it is used.

Invariant: an answer leaves from the address that was asked; the flows of a port are bounded, and a flood of
made-up clients only drives out the flows that were used least lately.

Source: RFC 3542, section 6 (IPV6_PKTINFO).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

Target = tuple[str, int]
_Key = tuple[Any, bytes]
"""The client's socket address, and ours as the kernel tells it."""

IDLE_S = 120.0
"""As the kernel's connection tracking keeps a flow that both sides speak in."""
FLOWS = 4096
"""Of one port at once."""
_LARGEST = 65535
_BATCH = 32
"""Datagrams taken from one socket before the others have their turn."""
_PACKET_INFO = socket.CMSG_SPACE(20)


@dataclass(slots=True)
class _Flow:
    target: Target
    socket: socket.socket
    used: float


class DatagramRelay:
    def __init__(self, bound: socket.socket, targets: tuple[Target, ...]) -> None:
        self._bound = bound
        self._targets = targets
        self._turn = 0
        self._flows: OrderedDict[_Key, _Flow] = OrderedDict()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(bound, self._take)
        self._sweeping = self._loop.call_later(IDLE_S, self._sweep)

    def lead_to(self, targets: tuple[Target, ...]) -> None:
        """Flows to those that serve no more move on with their next datagram."""
        self._targets = targets
        for key in [key for key, flow in self._flows.items() if flow.target not in targets]:
            self._end(key)

    def close(self) -> None:
        self._sweeping.cancel()
        for key in list(self._flows):
            self._end(key)
        self._loop.remove_reader(self._bound)
        self._bound.close()

    def _take(self) -> None:
        """From clients. Called again at once while there is more."""
        for _ in range(_BATCH):
            try:
                data, ancillary, _, client = self._bound.recvmsg(_LARGEST, _PACKET_INFO)
            except OSError:  # nothing more for now
                return
            ours = next((d for level, kind, d in ancillary if kind == socket.IPV6_PKTINFO), b"")
            key = (client, ours)
            try:
                flow = self._flows.get(key) or self._begin(key)
                flow.socket.send(data)
            except BlockingIOError:  # a datagram may be lost
                continue
            except OSError:  # the target is gone: another one for the next datagram
                self._end(key)
                continue
            flow.used = self._loop.time()
            self._flows.move_to_end(key)

    def _begin(self, key: _Key) -> _Flow:
        """Raises: OSError."""
        if len(self._flows) >= FLOWS:
            self._end(next(iter(self._flows)))
        target = self._targets[self._turn % len(self._targets)]
        self._turn += 1
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            there.connect(target)
        except OSError:
            there.close()
            raise
        flow = self._flows[key] = _Flow(target, there, self._loop.time())
        self._loop.add_reader(there, self._give, key, flow)
        return flow

    def _give(self, key: _Key, flow: _Flow) -> None:
        """To the client."""
        client, ours = key
        for _ in range(_BATCH):
            try:
                data = flow.socket.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                self._end(key)
                return
            flow.used = self._loop.time()
            self._flows.move_to_end(key)
            with contextlib.suppress(OSError):  # the client is out of reach: it is its loss
                self._bound.sendmsg([data], _leaving_from(ours), 0, client)

    def _end(self, key: _Key) -> None:
        flow = self._flows.pop(key, None)
        if flow is not None:
            self._loop.remove_reader(flow.socket)
            flow.socket.close()

    def _sweep(self) -> None:
        oldest = self._loop.time() - IDLE_S
        while self._flows and next(iter(self._flows.values())).used < oldest:
            self._end(next(iter(self._flows)))
        self._sweeping = self._loop.call_later(IDLE_S / 4, self._sweep)


def _leaving_from(ours: bytes) -> list[tuple[int, int, bytes]]:
    """The sender's address; its link too where the address means nothing without: else routes decide."""
    if not ours:
        return []
    address = ipaddress.IPv6Address(ours[:16])
    if not address.is_link_local:
        ours = struct.pack("=16sI", address.packed, 0)
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, ours)]
