"""The kernel's links, addresses, routes, neighbours and forwarding entries: the only speaker of rtnetlink.

In: small calls with names, addresses and interface indexes. Out: the kernel changed, or what it holds.
One `Netlink` is one socket; it stays in the network namespace in which it was opened, whichever thread
uses it later.

Invariant: `set_*` and `add_*` may be repeated, and `delete_*` of something that is gone is no error.

The few messages needed are packed here: a library for all of netlink costs 24 MiB and 0.4 s at start
(docs/decisions/0011). Source: linux/rtnetlink.h, if_link.h, neighbour.h; rtnetlink(7).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from swarm.base.errors import Temporary
from swarm.base.failpoint import failpoint
from swarm.overlay.plan import Tunnel

TIMEOUT_S = 5.0
LINK_GROUP = 0x5357
"""The kernel's link group of all our links in the host's namespace, so that one request deletes them all."""

_REQUEST, _ACK, _DUMP, _EXCL, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x100, 0x400
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE = 20, 21, 22, 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_IFF_UP = 1
_NTF_SELF, _NTF_MASTER = 0x02, 0x04
_NUD_REACHABLE, _NUD_NOARP, _NUD_PERMANENT = 0x02, 0x40, 0x80
_NESTED = 0x8000
_IFA_F_NODAD = 0x02
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
"""A question for all of them is answered with others, too."""

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_PROTINFO, _IFLA_NET_NS_FD, _IFLA_GROUP = 18, 12, 28, 27
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PROXY, _VXLAN_PORT = 1, 4, 7, 11, 15
_IFLA_LINK, _MACVLAN_MODE = 5, 1
_BRPORT_HAIRPIN, _BRPORT_LEARNING, _BRPORT_UNICAST_FLOOD = 4, 8, 9


class _Versioned(Protocol):
    """An address, interface or network of `ipaddress`."""

    @property
    def version(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    index: int
    name: str
    mtu: int
    master: int
    is_up: bool
    tunnel: Tunnel | None = None
    """Of a VXLAN link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VethEnd:
    """One end of a pair to be made, or a macvlan link.

    `netns` is an open descriptor; None is the socket's own namespace.
    """

    name: str
    mac: str = ""
    netns: int | None = None
    master: int = 0
    group: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFlags:
    """How a bridge treats a port. Every address is known: nothing is learnt, nothing unknown is sent."""

    hairpin: bool = False
    """What it sent may come back to it: a task that reaches itself by a virtual address or a host port."""
    learning: bool = False
    unicast_flood: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """What a link holds: to which host a MAC goes, and which MACs its bridge sends to it."""

    hosts: dict[str, str]
    bridged: frozenset[str]


class Netlink:
    """One rtnetlink socket. Open it in a thread that is in the wanted namespace; close it when done."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    # Links

    def list_links(self) -> dict[str, Link]:
        links = (_decode_link(payload) for payload in self._dump(_GETLINK, struct.pack("=B15x", 0)))
        return {link.name: link for link in links}

    def get_index(self, name: str) -> int:
        """The interface index of `name`, 0 if there is no such link."""
        try:
            body = _ifinfo() + _text(_IFLA_IFNAME, name)
            replies = list(self._exchange(_GETLINK, _REQUEST | _ACK, body))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return 0
            raise
        return int(struct.unpack_from("=i", replies[0], 4)[0])

    def add_bridge(self, name: str, *, mac: str, mtu: int, group: int = 0) -> None:
        body = _ifinfo(up=True) + _text(_IFLA_IFNAME, name) + pack_attribute(_IFLA_ADDRESS, pack_mac(mac))
        body += _u32(_IFLA_MTU, mtu) + _u32(_IFLA_GROUP, group) + _link_kind("bridge")
        self._change(_NEWLINK, body, _CREATE | _EXCL, fine=(errno.EEXIST,))

    def add_veth(self, end: VethEnd, peer: VethEnd, *, mtu: int) -> None:
        """A pair of links; the kernel lets only the first be up from birth.

        Raises: FileExistsError when one of the names is taken.
        """
        data = _nested(_INFO_DATA, _nested(1, _veth_end(peer, mtu, up=False)))
        body = _veth_end(end, mtu, up=True) + _link_kind("veth", data)
        self._change(_NEWLINK, body, _CREATE | _EXCL)

    def add_vxlan(self, name: str, tunnel: Tunnel) -> None:
        """A VXLAN link, down, that floods nothing and answers ARP from its neighbour entries."""
        data = _u32(_VXLAN_ID, tunnel.vni) + pack_attribute(_VXLAN_LOCAL, _ip(tunnel.local))
        data += pack_attribute(_VXLAN_LEARNING, b"\0") + pack_attribute(_VXLAN_PROXY, b"\1")
        data += pack_attribute(_VXLAN_PORT, struct.pack("!H", tunnel.port))
        body = _ifinfo() + _text(_IFLA_IFNAME, name) + _u32(_IFLA_MTU, tunnel.mtu)
        self._change(_NEWLINK, body + _link_kind("vxlan", _nested(_INFO_DATA, data)), _CREATE | _EXCL)

    def add_macvlan(self, end: VethEnd, *, parent: int, mode: int) -> None:
        """A link with a MAC of its own on the link `parent`, down.

        Raises: OSError when the parent cannot carry it, or the name is taken: also in this namespace, if
        the link is made in another.
        """
        data = _nested(_INFO_DATA, _u32(_MACVLAN_MODE, mode))
        body = _ifinfo() + _text(_IFLA_IFNAME, end.name) + _u32(_IFLA_LINK, parent)
        body += pack_attribute(_IFLA_ADDRESS, pack_mac(end.mac))
        if end.netns is not None:
            body += _u32(_IFLA_NET_NS_FD, end.netns)
        self._change(_NEWLINK, body + _link_kind("macvlan", data), _CREATE | _EXCL)

    def add_link(self, name: str, kind: str) -> None:
        """A link that needs no settings, down."""
        self._change(_NEWLINK, _ifinfo() + _text(_IFLA_IFNAME, name) + _link_kind(kind), _CREATE | _EXCL)

    def set_mtu(self, index: int, mtu: int) -> None:
        self._change(_SETLINK, _ifinfo(index) + _u32(_IFLA_MTU, mtu))

    def move_link(self, index: int, *, netns: int, name: str) -> None:
        self._change(_SETLINK, _ifinfo(index) + _u32(_IFLA_NET_NS_FD, netns) + _text(_IFLA_IFNAME, name))

    def set_name(self, index: int, name: str) -> None:
        """Of a link that is down."""
        self._change(_SETLINK, _ifinfo(index) + _text(_IFLA_IFNAME, name))

    def set_up(self, index: int, *, master: int = 0) -> None:
        body = _ifinfo(index, up=True)
        self._change(_SETLINK, body + (_u32(_IFLA_MASTER, master) if master else b""))

    def set_port(self, index: int, flags: PortFlags) -> None:
        info = pack_attribute(_BRPORT_LEARNING, bytes([flags.learning]))
        info += pack_attribute(_BRPORT_UNICAST_FLOOD, bytes([flags.unicast_flood]))
        info += pack_attribute(_BRPORT_HAIRPIN, bytes([flags.hairpin]))
        self._change(_SETLINK, _ifinfo(index, family=socket.AF_BRIDGE) + _nested(_IFLA_PROTINFO, info))

    def delete_link(self, name: str) -> None:
        body = _ifinfo() + _text(_IFLA_IFNAME, name)
        self._change(_DELLINK, body, fine=(errno.ENODEV,))

    def delete_group(self, group: int) -> None:
        """Delete every link of the group at once: one by one each costs 20 ms."""
        self._change(_DELLINK, _ifinfo() + _u32(_IFLA_GROUP, group), fine=(errno.ENODEV,))

    # Addresses and routes

    def list_addresses(self) -> list[tuple[int, ipaddress.IPv4Interface]]:
        """(interface index, address with prefix) of every IPv4 address."""
        return [
            (index, ipaddress.IPv4Interface((raw, prefix)))
            for family, index, raw, prefix in self._list_addresses(socket.AF_INET)
            if family == socket.AF_INET
        ]

    def addresses_on(self, index: int) -> frozenset[str]:
        """Of both families, without their prefixes: there may be thousands, so no more is made of them."""
        return frozenset(
            socket.inet_ntop(family, raw)
            for family, of, raw, _ in self._list_addresses(socket.AF_UNSPEC)
            if of == index
        )

    def _list_addresses(self, family: int) -> Iterator[tuple[int, int, bytes, int]]:
        for payload in self._dump(_GETADDR, struct.pack("=BBBBi", family, 0, 0, 0, 0)):
            found, prefix, index = struct.unpack_from("=BBxxi", payload)
            attributes = dict(decode_attributes(payload[8:]))
            raw = attributes.get(2) or attributes.get(1)
            if raw and found in _FAMILIES:
                yield found, index, raw, prefix

    def add_address(self, index: int, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
        """One of IPv6 is used at once: nobody else can have it."""
        network = address.network
        flags = 0 if address.version == 4 else _IFA_F_NODAD
        body = struct.pack("=BBBBi", _family(address), network.prefixlen, flags, 0, index)
        body += pack_attribute(2, address.ip.packed) + pack_attribute(1, address.ip.packed)
        if address.version == 4 and network.prefixlen < 31:
            body += pack_attribute(4, network.broadcast_address.packed)
        self._change(_NEWADDR, body, _CREATE | _EXCL, fine=(errno.EEXIST,))

    def delete_address(self, index: int, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
        body = struct.pack("=BBBBi", _family(address), address.network.prefixlen, 0, 0, index)
        body += pack_attribute(2, address.ip.packed)
        self._change(_DELADDR, body, fine=(errno.EADDRNOTAVAIL,))

    def list_routes(self) -> list[ipaddress.IPv4Network]:
        """Destinations of every IPv4 route but the default one."""
        return [
            ipaddress.IPv4Network((raw, prefix), strict=False)
            for family, raw, prefix in self._list_routes(socket.AF_INET)
            if family == socket.AF_INET
        ]

    def destinations(self) -> frozenset[str]:
        """Of routes of both families, in CIDR, as texts: there are as many as addresses."""
        routes = self._list_routes(socket.AF_UNSPEC)
        return frozenset(f"{socket.inet_ntop(family, raw)}/{prefix}" for family, raw, prefix in routes)

    def _list_routes(self, family: int) -> Iterator[tuple[int, bytes, int]]:
        for payload in self._dump(_GETROUTE, struct.pack("=B11x", family)):
            destination = dict(decode_attributes(payload[12:])).get(1)
            if destination and payload[0] in _FAMILIES:
                yield payload[0], destination, payload[1]

    def set_default_route(self, index: int, gateway: str) -> None:
        # main table, protocol static, universe scope, unicast
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0)
        self._change(_NEWROUTE, body + pack_attribute(5, _ip(gateway)) + _u32(4, index), _CREATE | _REPLACE)

    def add_route(self, index: int, destination: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        """`destination` is straight behind the link: main table, protocol static, link scope, unicast."""
        body = struct.pack("=BBBBBBBBI", _family(destination), destination.prefixlen, 0, 0, 254, 4, 253, 1, 0)
        body += pack_attribute(1, destination.network_address.packed) + _u32(4, index)
        self._change(_NEWROUTE, body, _CREATE | _REPLACE)

    def delete_route(self, index: int, destination: ipaddress.IPv4Network) -> None:
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, destination.prefixlen, 0, 0, 254, 0, 255, 0, 0)
        body += pack_attribute(1, destination.network_address.packed) + _u32(4, index)
        self._change(_DELROUTE, body, fine=(errno.ESRCH,))

    def list_host_routes(self) -> dict[ipaddress.IPv4Network, int]:
        """Single addresses that the main table leads to, and the link by which."""
        found = {}
        for payload in self._dump(_GETROUTE, struct.pack("=B11x", socket.AF_INET)):
            attributes = dict(decode_attributes(payload[12:]))
            if payload[1] == 32 and payload[4] == 254 and 1 in attributes and 4 in attributes:
                found[ipaddress.IPv4Network(attributes[1])] = _number(attributes[4])
        return found

    # Neighbours and forwarding entries

    def list_neighbours(self) -> dict[int, dict[str, str]]:
        """Permanent neighbours of each link, of both families, by its index: address to MAC."""
        found: dict[int, dict[str, str]] = {}
        for payload in self._dump(_GETNEIGH, struct.pack("=BxxxiHBB", socket.AF_UNSPEC, 0, 0, 0, 0)):
            of, state = struct.unpack_from("=4xiH", payload)
            if not state & _NUD_PERMANENT:
                continue
            attributes = dict(decode_attributes(payload[12:]))
            if payload[0] in _FAMILIES and 1 in attributes and 2 in attributes:
                address = socket.inet_ntop(payload[0], attributes[1])
                found.setdefault(of, {})[address] = attributes[2].hex(":")
        return found

    def set_neighbour(self, index: int, address: str, mac: str) -> None:
        own = ipaddress.ip_address(address)
        body = struct.pack("=BxxxiHBB", _family(own), index, _NUD_PERMANENT, 0, 0)
        body += pack_attribute(1, own.packed) + pack_attribute(2, pack_mac(mac))
        self._change(_NEWNEIGH, body, _CREATE | _REPLACE)

    def delete_neighbour(self, index: int, address: str) -> None:
        own = ipaddress.ip_address(address)
        body = struct.pack("=BxxxiHBB", _family(own), index, 0, 0, 0) + pack_attribute(1, own.packed)
        self._change(_DELNEIGH, body, fine=(errno.ENOENT,))

    def list_forwarding(self, index: int) -> Forwarding:
        hosts: dict[str, str] = {}
        bridged: set[str] = set()
        for payload in self._dump(_GETNEIGH, struct.pack("=BxxxiHBB", socket.AF_BRIDGE, 0, 0, 0, 0)):
            of, state, flags = struct.unpack_from("=4xiHB", payload)
            if of != index:
                continue
            attributes = dict(decode_attributes(payload[12:]))
            if 2 not in attributes:
                continue
            mac = attributes[2].hex(":")
            if flags & _NTF_SELF and 1 in attributes:
                hosts[mac] = socket.inet_ntoa(attributes[1])
            elif state & _NUD_NOARP:
                bridged.add(mac)
        return Forwarding(hosts=hosts, bridged=frozenset(bridged))

    def set_forwarding(self, index: int, mac: str, host: str = "") -> None:
        """The bridge sends `mac` to this port; with `host`, the port (a VXLAN link) sends it to that host."""
        state = _NUD_NOARP | _NUD_REACHABLE  # static; permanent would mean the bridge's own
        flags = _NTF_MASTER | (_NTF_SELF if host else 0)
        body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, index, state, flags, 0)
        body += pack_attribute(2, pack_mac(mac)) + (pack_attribute(1, _ip(host)) if host else b"")
        self._change(_NEWNEIGH, body, _CREATE | _REPLACE)

    def delete_forwarding(self, index: int, mac: str) -> None:
        for flag in (_NTF_MASTER, _NTF_SELF):
            body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, index, 0, flag, 0) + pack_attribute(
                2, pack_mac(mac)
            )
            self._change(_DELNEIGH, body, fine=(errno.ENOENT,))

    # The wire

    def _change(self, kind: int, body: bytes, flags: int = 0, *, fine: tuple[int, ...] = ()) -> None:
        failpoint("network.kernel.change")
        try:
            list(self._exchange(kind, _REQUEST | _ACK | flags, body))
        except OSError as error:
            if error.errno not in fine:
                raise

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        return self._exchange(kind, _REQUEST | _DUMP, body)

    def _exchange(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        self._socket.send(header + body)
        yield from receive(self._socket, self._sequence)


def receive(channel: socket.socket, sequence: int) -> Iterator[bytes]:
    """Payloads of the answer to request `sequence`. Raises: OSError as the kernel reports it."""
    while True:
        try:
            buffer = channel.recv(1 << 17)
        except TimeoutError as error:
            raise Temporary(
                f"the kernel did not answer a netlink request within {TIMEOUT_S:.0f} s"
            ) from error
        offset = 0
        while offset + 16 <= len(buffer):
            length, kind, _, number = struct.unpack_from("=IHHI", buffer, offset)
            payload = buffer[offset + 16 : offset + length]
            offset += (length + 3) & ~3
            if number != sequence:  # the rest of an exchange that was given up
                continue
            if kind == 3:
                return
            if kind == 2:
                code = -struct.unpack_from("=i", payload)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return
            yield payload


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _ip(address: str) -> bytes:
    return socket.inet_aton(address)


def pack_attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _family(of: _Versioned) -> int:
    return socket.AF_INET if of.version == 4 else socket.AF_INET6


def _nested(kind: int, value: bytes) -> bytes:
    return pack_attribute(kind | _NESTED, value)


def _u32(kind: int, value: int) -> bytes:
    return pack_attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return pack_attribute(kind, value.encode() + b"\0")


def _ifinfo(index: int = 0, *, up: bool = False, family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 0, index, _IFF_UP if up else 0, _IFF_UP if up else 0)


def _link_kind(kind: str, rest: bytes = b"") -> bytes:
    return _nested(_IFLA_LINKINFO, pack_attribute(_INFO_KIND, kind.encode()) + rest)


def _veth_end(end: VethEnd, mtu: int, *, up: bool) -> bytes:
    body = _ifinfo(up=up) + _text(_IFLA_IFNAME, end.name) + _u32(_IFLA_MTU, mtu)
    if end.mac:
        body += pack_attribute(_IFLA_ADDRESS, pack_mac(end.mac))
    if end.netns is not None:
        body += _u32(_IFLA_NET_NS_FD, end.netns)
    if end.master:
        body += _u32(_IFLA_MASTER, end.master)
    if end.group:
        body += _u32(_IFLA_GROUP, end.group)
    return body


def decode_attributes(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(buffer):
        length, kind = struct.unpack_from("=HH", buffer, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, buffer[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _decode_link(payload: bytes) -> Link:
    index, flags = struct.unpack_from("=4xiI", payload)
    attributes = dict(decode_attributes(payload[16:]))
    return Link(
        index=index,
        name=attributes[_IFLA_IFNAME].rstrip(b"\0").decode(),
        mtu=_number(attributes[_IFLA_MTU]),
        master=_number(attributes.get(_IFLA_MASTER, bytes(4))),
        is_up=bool(flags & _IFF_UP),
        tunnel=_decode_tunnel(attributes),
    )


def _decode_tunnel(attributes: dict[int, bytes]) -> Tunnel | None:
    described = dict(decode_attributes(attributes.get(_IFLA_LINKINFO, b"")))
    if described.get(_INFO_KIND, b"").rstrip(b"\0") != b"vxlan":
        return None
    vxlan = dict(decode_attributes(described.get(_INFO_DATA, b"")))
    return Tunnel(
        vni=_number(vxlan[_VXLAN_ID]),
        local=socket.inet_ntoa(vxlan.get(_VXLAN_LOCAL, bytes(4))),
        port=int.from_bytes(vxlan[_VXLAN_PORT], "big"),
        mtu=_number(attributes[_IFLA_MTU]),
    )


def _number(value: bytes) -> int:
    return int(struct.unpack("=I", value)[0])
