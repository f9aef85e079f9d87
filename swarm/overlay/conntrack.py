"""Flows that the kernel remembers: forget those that would go on to a target that serves no more.

In: protocol and address of a target that left, or a port that was opened. Out: flow entries deleted.
An established TCP connection is left alone: a stopping task may finish its work.

Invariant: only entries that were matched here, again and in full, are deleted.
Source: linux/netfilter/nfnetlink_conntrack.h. Blocking.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from swarm.model.types import Protocol
from swarm.overlay.netlink import decode_attributes, pack_attribute, receive

TIMEOUT_S = 5.0
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_NESTED = 0x8000
_ORIGINAL, _REPLY, _STATUS, _FILTER = 1, 2, 3, 25
_SEEN_REPLY, _DST_NAT = 0x2, 0x20
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
_FLAGS_REPLY, _REPLY_SOURCE = 2, 0x1
_IPV4_SOURCE, _IPV4_TARGET, _IPV6_SOURCE, _IPV6_TARGET = 1, 2, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    original: bytes
    """The tuple as the kernel gave it: what a deletion must quote."""
    family: int
    protocol: int
    port: int
    """Where the client sent it."""
    sent_to: str
    """The address that the client sent it to."""
    answers_from: str
    status: int


def forget_target(protocol: Protocol, address: str) -> int:
    """Forget translated flows to `address` that are UDP, or without an answer yet. Returns how many."""

    def is_stale(flow: _Flow) -> bool:
        is_settled = protocol is not Protocol.UDP and flow.status & _SEEN_REPLY
        return flow.answers_from == address and bool(flow.status & _DST_NAT) and not is_settled

    return _forget(protocol, is_stale, _filter_by_source(address))


def forget_untranslated(protocol: Protocol, port: int) -> int:
    """Forget UDP flows to `port` that began before the port had a target. Returns how many."""
    if protocol is not Protocol.UDP:
        return 0
    return _forget(protocol, lambda flow: flow.port == port and not flow.status & _DST_NAT, b"")


def forget_virtual(left: Set[str], opened: Set[str]) -> int:
    """Forget what may move, of flows to tasks that have `left` virtual addresses, and what was refused before
    virtual addresses were `opened`: UDP, and TCP without an answer yet. Returns how many.

    All at once: each list of flows costs milliseconds, as the kernel looks through those of all namespaces.
    """

    def is_stale(flow: _Flow) -> bool:
        if not flow.status & _DST_NAT:
            return flow.sent_to in opened
        is_settled = flow.protocol != _NUMBERS[Protocol.UDP] and flow.status & _SEEN_REPLY
        return flow.answers_from in left and not is_settled

    kernel_filter = b"" if opened or len(left) != 1 else _filter_by_source(next(iter(left)))
    return _forget(None, is_stale, kernel_filter)


def _forget(protocol: Protocol | None, is_stale: Callable[[_Flow], bool], kernel_filter: bytes) -> int:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as channel:
        channel.settimeout(TIMEOUT_S)
        numbers = [_NUMBERS[protocol]] if protocol else list(_NUMBERS.values())
        stale = [f for f in _list_flows(channel, kernel_filter) if f.protocol in numbers and is_stale(f)]
        for sequence, flow in enumerate(stale, start=10):
            body = _header(flow.family) + pack_attribute(_ORIGINAL | _NESTED, flow.original)
            _send(channel, _DELETE, _REQUEST | _ACK, body, sequence)
            with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
                list(receive(channel, sequence))
    return len(stale)


def _list_flows(channel: socket.socket, kernel_filter: bytes) -> list[_Flow]:
    """The flows that pass the kernel's filter; all of them where the kernel (before 5.8) cannot filter."""
    try:
        _send(channel, _GET, _REQUEST | _DUMP, kernel_filter or _header(socket.AF_UNSPEC), 1)
        return [_decode_flow(payload) for payload in receive(channel, 1)]
    except OSError:
        if not kernel_filter:
            raise
        _send(channel, _GET, _REQUEST | _DUMP, _header(socket.AF_UNSPEC), 2)
        return [_decode_flow(payload) for payload in receive(channel, 2)]


def _send(channel: socket.socket, kind: int, flags: int, body: bytes, sequence: int) -> None:
    channel.send(struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body)


def _header(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)


def _filter_by_source(address: str) -> bytes:
    """A question for flows whose replies come from `address`, and for no others."""
    own = ipaddress.ip_address(address)
    family, kind = (socket.AF_INET, _IPV4_SOURCE) if own.version == 4 else (socket.AF_INET6, _IPV6_SOURCE)
    source = pack_attribute(1 | _NESTED, pack_attribute(kind, own.packed))
    wanted = pack_attribute(_FLAGS_REPLY, struct.pack("=I", _REPLY_SOURCE))
    asked = pack_attribute(_REPLY | _NESTED, source) + pack_attribute(_FILTER | _NESTED, wanted)
    return _header(family) + asked


def _decode_flow(payload: bytes) -> _Flow:
    parts = dict(decode_attributes(payload[4:]))
    original = dict(decode_attributes(parts[_ORIGINAL]))
    transport = dict(decode_attributes(original[2]))
    addresses = dict(decode_attributes(original[1]))
    reply = dict(decode_attributes(dict(decode_attributes(parts[_REPLY]))[1]))
    return _Flow(
        original=parts[_ORIGINAL],
        protocol=transport[1][0],
        port=int.from_bytes(transport.get(3, b""), "big"),
        family=payload[0],
        sent_to=_address(addresses, _IPV4_TARGET, _IPV6_TARGET),
        answers_from=_address(reply, _IPV4_SOURCE, _IPV6_SOURCE),
        status=int.from_bytes(parts.get(_STATUS, b""), "big"),
    )


def _address(found: Mapping[int, bytes], *kinds: int) -> str:
    return next((str(ipaddress.ip_address(found[kind])) for kind in kinds if kind in found), "")
