"""Asks 127.0.0.11 for one name as fast as answers come, in a task's network; prints answers per second.

`python -m bench.ask_names NAME SECONDS`
"""

from __future__ import annotations

import socket
import struct
import sys

from swarm.base.clock import SystemClock

IN_FLIGHT = 16
_BATCH = 200


def main(name: str, seconds: float) -> float:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    clock = SystemClock()
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.11", 53))
        for _ in range(IN_FLIGHT):
            client.send(query)
        began, answers = clock.monotonic(), 0
        while clock.monotonic() - began < seconds:
            for _ in range(_BATCH):
                if client.recv(512)[3] & 0x0F:
                    raise SystemExit(f"{name} has no answer")
                client.send(query)
            answers += _BATCH
        return answers / (clock.monotonic() - began)


if __name__ == "__main__":
    print(f"{main(sys.argv[1], float(sys.argv[2])):.0f}")
