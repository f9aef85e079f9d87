"""Asks 127.0.0.11 for one name again and again, in a task's network; says when the answer has changed.

`python -m bench.watch_names NAME` prints a line of JSON for each change: the time (seconds since the epoch)
and the addresses; until its standard input ends.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys

from swarm.base.clock import SystemClock

EVERY_S = 0.005
_RECORD = struct.Struct("!HHHIH4s")
"""A pointer to the question's name, type, class, time to live, length, address."""


def main(name: str) -> None:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    clock, known = SystemClock(), None
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.11", 53))
        while not select.select([sys.stdin], [], [], EVERY_S)[0]:
            client.send(query)
            records = client.recv(4096)[len(query) :]
            found = sorted(
                socket.inet_ntoa(_RECORD.unpack_from(records, at)[-1])
                for at in range(0, len(records), _RECORD.size)
            )
            if found != known:
                known = found
                print(json.dumps({"at": clock.now().timestamp(), "addresses": found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
