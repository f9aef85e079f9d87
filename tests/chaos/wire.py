"""A longer cable: every frame of one port of a switch arrives later, in either direction.

    python -m tests.chaos.wire PORT DELAY_S JITTER_S     (in the switch's network namespace)

In: a port of the switch. Out: a tap that can take its place, and frames carried between the two until
SIGTERM. Invariant: frames keep their order and their content; checksums and segments that the sender has left
to its card stay so, since both sides speak of them in the same header. The kernel here has no netem.
Source: linux/if_tun.h, linux/if_packet.h, linux/virtio_net.h.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Callable

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_ETH_P_ALL = 3
_PACKET_VNET_HDR, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC, _PACKET_OUTGOING = 15, 1, 1, 4
_SOL_PACKET = 263
_FRAME = 1 << 17


def tap_name(port: str) -> str:
    return f"late-{port}"


class Late:
    """Sends what it is given after a while, never out of order."""

    def __init__(self, send: Callable[[bytes], object], delay_s: float, jitter_s: float) -> None:
        self._send = send
        self._delay_s = delay_s
        self._jitter_s = jitter_s
        self._free_at = 0.0

    def take(self, frame: bytes) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._delay_s + random.uniform(-self._jitter_s, self._jitter_s)
        self._free_at = max(self._free_at, due)
        loop.call_at(self._free_at, self._deliver, frame)

    def _deliver(self, frame: bytes) -> None:
        try:
            self._send(frame)
        except OSError:
            return  # a full queue or a link that is down loses frames, as a switch does


async def carry(port: str, delay_s: float, jitter_s: float) -> None:
    """Until SIGTERM."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", tap_name(port).encode(), flags))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as cable:
        cable.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        cable.bind((port, _ETH_P_ALL))
        promiscuous = struct.pack("iHH8s", socket.if_nametoindex(port), _PACKET_MR_PROMISC, 0, b"")
        cable.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, promiscuous)
        inward = Late(lambda frame: os.write(tap, frame), delay_s, jitter_s)
        outward = Late(cable.send, delay_s, jitter_s)

        def from_cable() -> None:
            try:
                frame, address = cable.recvfrom(_FRAME)
            except OSError:
                return  # the port is gone with its host
            if address[2] != _PACKET_OUTGOING:
                inward.take(frame)

        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_reader(cable, from_cable)
        loop.add_reader(tap, lambda: outward.take(os.read(tap, _FRAME)))
        print("ready", flush=True)
        await ended.wait()
        loop.remove_reader(cable)
        loop.remove_reader(tap)


if __name__ == "__main__":
    asyncio.run(carry(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
