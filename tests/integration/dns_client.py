"""Asks a name server over UDP or TCP; prints code and records as JSON: `dns_client SERVER NAME TYPE [tcp]`.

No library: what is tested must not be its own judge, so nothing of the project's is used either.
"""

from __future__ import annotations

import json
import socket
import struct
import sys

TYPES = {"A": 1, "PTR": 12, "AAAA": 28, "MX": 15}
CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def pack(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def read_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    end = 0
    while data[at]:
        if data[at] >= 0xC0:
            end = end or at + 2
            at = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            continue
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels), end or at + 1


def read(data: bytes) -> dict[str, object]:
    number, flags, questions, answers, _, _ = struct.unpack_from("!HHHHHH", data)
    assert number == 4711
    at = 12
    for _ in range(questions):
        at = read_name(data, at)[1] + 4
    records = []
    for _ in range(answers):
        at = read_name(data, at)[1]
        kind, _, _, length = struct.unpack_from("!HHIH", data, at)
        at += 10
        if kind in (TYPES["A"], TYPES["AAAA"]):
            family = socket.AF_INET if kind == TYPES["A"] else socket.AF_INET6
            records.append(socket.inet_ntop(family, data[at : at + length]))
        else:
            records.append(read_name(data, at)[0])
        at += length
    return {"code": CODES[flags & 15], "records": records, "truncated": bool(flags & 0x0200)}


def ask(server: str, name: str, kind: str, *, tcp: bool) -> dict[str, object]:
    query = pack(name, TYPES[kind])
    if not tcp:
        with socket.socket(type=socket.SOCK_DGRAM) as channel:
            channel.settimeout(10)
            channel.connect((server, 53))
            channel.send(query)
            return read(channel.recv(4096))
    with socket.create_connection((server, 53), timeout=10) as stream:
        stream.sendall(len(query).to_bytes(2, "big") + query)
        file = stream.makefile("rb")
        return read(file.read(int.from_bytes(file.read(2), "big")))


if __name__ == "__main__":
    print(json.dumps(ask(*sys.argv[1:4], tcp="tcp" in sys.argv[4:])))
