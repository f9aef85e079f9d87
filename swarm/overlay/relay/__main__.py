"""The relay's process: one per host, which answers on published ports for clients that come by IPv6.

In: orders that tell all ports with their targets. Out: the ports that could not be opened, and why.

Overlays have IPv4 only, and the kernel translates no address of one family into the other's: so here, and
only here, bytes of tasks pass through Python. Apart from swarmd, so that connections outlive its restarts.

Invariant: a port is open exactly while it has targets, so one without any is refused at once; a connection
that stands goes on until one of its ends closes it, whatever happens to its port.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

from swarm.overlay.relay.datagrams import DatagramRelay
from swarm.overlay.relay.streams import StreamRelay
from swarm.overlay.side_program import obey_orders

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Relays:
    def __init__(self) -> None:
        self._open: dict[str, StreamRelay | DatagramRelay] = {}

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """`order`: {"ports": {"tcp/8080": [["10.0.0.5", 80], ...]}}."""
        ports = order["ports"]
        for key in self._open.keys() - ports.keys():
            self._open.pop(key).close()
        failed = {}
        for key, places in ports.items():
            targets = tuple((str(address), int(port)) for address, port in places)
            try:
                await self._serve(key, targets)
            except OSError as error:
                failed[key] = error.strerror or str(error)
        return {"failed": failed}

    async def _serve(self, key: str, targets: tuple[tuple[str, int], ...]) -> None:
        if key in self._open:
            self._open[key].lead_to(targets)
            return
        protocol, _, port = key.partition("/")
        opened = listen(_KINDS[protocol], int(port))
        if protocol == "tcp":
            self._open[key] = await StreamRelay.start(opened, targets)
        else:
            self._open[key] = DatagramRelay(opened, targets)


def listen(kind: socket.SocketKind, port: int) -> socket.socket:
    """On every IPv6 address of this host, and on no IPv4 address: those are the firewall table's."""
    opened = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
    try:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind is socket.SOCK_STREAM:  # else connections of a former relay would bar the port for a minute
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        opened.bind(("::", port))
    except OSError:
        opened.close()
        raise
    return opened


async def main(path: Path) -> None:
    await obey_orders(path, Relays().obey)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
