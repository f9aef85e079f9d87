"""DNS messages, as far as service names need them: one question in, addresses or a name out. Pure.

In: bytes from a client. Out: a `Query`; and bytes of the answer to it.

Invariant: no input whatever makes `parse_query` fail with anything but `WireError`, nor loop; what is built
is never longer than the client takes, and says so when something is missing from it.

Source: RFC 1035 §4; RFC 3596; RFC 6891 for a client's larger datagrams.
"""

from __future__ import annotations

import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

TYPE_A, TYPE_PTR, TYPE_AAAA, TYPE_OPT, TYPE_ANY = 1, 12, 28, 41, 255
CLASS_IN, CLASS_ANY = 1, 255
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED = 0, 1, 2, 3, 4

SMALLEST_DATAGRAM = 512
LARGEST_DATAGRAM = 1232
"""What we send at most, whatever the client takes: it fits the smallest IPv6 link."""
LARGEST_MESSAGE = 65535
"""Over TCP."""

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0080
_OPCODE, _RECURSION_DESIRED = 0x7800, 0x0100
_NAME_OF_QUESTION = b"\xc0\x0c"
_LARGEST_NAME = 255
_TTL_S = 0
"""Answers change from one moment to the next, and the server is in the same machine."""


class WireError(ValueError):
    """The bytes are no query that can be answered."""


@dataclass(frozen=True, slots=True)
class Query:
    id: int
    flags: int
    name: str
    """In lower case, without the last dot."""
    kind: int
    record_class: int
    question: bytes
    """As it came: an answer repeats it, letter by letter."""
    takes: int
    """Bytes of the largest datagram that the client takes."""
    has_options: bool
    """It speaks RFC 6891, and so must the answer."""


def parse_query(data: bytes) -> Query:
    """Raises: WireError."""
    if len(data) < _HEADER.size:
        raise WireError("shorter than a header")
    number, flags, questions, _, _, additional = _HEADER.unpack_from(data)
    if flags & _RESPONSE or questions != 1:
        raise WireError("not a query with one question")
    labels, end = _read_labels(data, _HEADER.size)
    if len(data) < end + 4:
        raise WireError("the question is cut off")
    kind, record_class = struct.unpack_from("!HH", data, end)
    takes = _read_options(data, end + 4) if additional else 0
    return Query(
        id=number,
        flags=flags,
        name=b".".join(labels).decode("latin-1").lower(),
        kind=kind,
        record_class=record_class,
        question=data[_HEADER.size : end + 4],
        takes=min(max(takes, SMALLEST_DATAGRAM), LARGEST_DATAGRAM),
        has_options=takes > 0,
    )


def is_standard(query: Query) -> bool:
    return not query.flags & _OPCODE and query.record_class in (CLASS_IN, CLASS_ANY)


def build_answer(query: Query, data: Sequence[bytes], *, limit: int, code: int = NO_ERROR) -> bytes:
    """The answer with `data` as the records of the type that was asked for; cut where it passes `limit`."""
    kind = TYPE_A if query.kind == TYPE_ANY else query.kind
    options = b"\0" + struct.pack("!HHIH", TYPE_OPT, LARGEST_DATAGRAM, 0, 0) if query.has_options else b""
    room = limit - _HEADER.size - len(query.question) - len(options)
    records = []
    for each in data:
        record = _NAME_OF_QUESTION + _RECORD.pack(kind, CLASS_IN, _TTL_S, len(each)) + each
        room -= len(record)
        if room < 0:
            break
        records.append(record)
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (query.flags & _RECURSION_DESIRED) | code
    if len(records) < len(data):
        flags |= _TRUNCATED
    header = _HEADER.pack(query.id, flags, 1, len(records), 0, bool(options))
    return b"".join((header, query.question, *records, options))


def build_refusal(data: bytes, code: int) -> bytes:
    """For bytes that are no query: their id, and why. Nothing at all for what is an answer itself."""
    if len(data) < _HEADER.size or data[2] & 0x80:
        return b""
    flags = _RESPONSE | ((data[2] << 8) & (_OPCODE | _RECURSION_DESIRED)) | code
    return _HEADER.pack(int.from_bytes(data[:2], "big"), flags, 0, 0, 0, 0)


def pack_name(name: str) -> bytes:
    """Raises: WireError when it is no name."""
    labels = name.encode("latin-1", "replace").split(b".")
    if any(not 0 < len(label) < 64 for label in labels):
        raise WireError(f"{name!r} is no name")
    packed = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(packed) > _LARGEST_NAME:
        raise WireError(f"{name!r} is too long a name")
    return packed


def reversed_address(name: str) -> str:
    """The address that a name of in-addr.arpa or ip6.arpa asks about; empty if it does not."""
    labels = name.split(".")
    if labels[32:] == ["ip6", "arpa"]:
        digits = "".join(labels[31::-1])
        is_hexadecimal = all(len(digit) == 1 and digit in string.hexdigits for digit in labels[:32])
        return str(IPv6Address(int(digits, 16))) if is_hexadecimal else ""
    if labels[4:] != ["in-addr", "arpa"]:
        return ""
    numbers = labels[3::-1]
    if not all(n.isascii() and n.isdigit() and len(n) < 4 and int(n) < 256 for n in numbers):
        return ""
    return ".".join(str(int(n)) for n in numbers)


def _read_labels(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """The labels of a name without pointers, which a question never has, and where it ends."""
    labels: list[bytes] = []
    start = offset
    while True:
        if offset >= len(data):
            raise WireError("the name is cut off")
        length = data[offset]
        if length == 0:
            return labels, offset + 1
        if length > 63 or offset + 1 + length - start > _LARGEST_NAME:
            raise WireError("the name is too long or has a pointer")
        labels.append(data[offset + 1 : offset + 1 + length])
        offset += 1 + length


def _read_options(data: bytes, offset: int) -> int:
    """What an OPT record, the first after the question, says that the client takes; 0 if there is none."""
    if len(data) < offset + 11 or data[offset] != 0:
        return 0
    kind, size = struct.unpack_from("!HH", data, offset + 1)
    return max(int(size), 1) if kind == TYPE_OPT else 0
