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


class Relays:
    def __init__(self) -> None:
        self._open: dict[str, StreamRelay | DatagramRelay] = {}

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """`order`: {"ports": {"tcp/8080": {"targets": [["10.0.0.5", 80], ...], "header": false}}}."""
        ports = order["ports"]
        for key in self._open.keys() - ports.keys():
            self._open.pop(key).close()
        failed = {}
        for key, port in ports.items():
            try:
                await self._serve(key, port)
            except OSError as error:
                failed[key] = error.strerror or str(error)
        return {"failed": failed}

    async def _serve(self, key: str, port: dict[str, Any]) -> None:
        protocol, _, number = key.partition("/")
        targets = tuple((str(address), int(to)) for address, to in port["targets"])
        match self._open.get(key):
            case StreamRelay() as streams:
                streams.lead_to(targets, header=bool(port["header"]))
            case DatagramRelay() as datagrams:
                datagrams.lead_to(targets)
            case None if protocol == "tcp":
                opened = listen(socket.SOCK_STREAM, int(number))
                self._open[key] = await StreamRelay.start(opened, targets, header=bool(port["header"]))
            case None:
                self._open[key] = DatagramRelay(listen(socket.SOCK_DGRAM, int(number)), targets)


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
