"""The k8s-file format that conmon writes: bytes in, whole log lines out. Pure.

A record is `RFC3339Nano stdout|stderr F|P text`; a line longer than conmon's buffer comes as several P
records and one F. Invariant: the bytes of a line are given on unchanged, once, in the order of its stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_LINE_BYTES = 1 << 20
"""A longer line is given on in pieces, so that a reader's memory is bounded."""

_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}
_NANO_DIGITS = 9


@dataclass(frozen=True, slots=True)
class LogLine:
    timestamp: str
    """RFC 3339 in UTC with nanoseconds, as Docker prints it."""
    stream: str
    data: bytes
    """Without the newline."""
    partial: bool = False
    """The line has no end: it was too long, or the program ended within it."""

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.timestamp[:19]).replace(
            tzinfo=UTC, microsecond=int(self.timestamp[20:26])
        )


def is_record_end(record: bytes) -> bool:
    """Whether `record` is the last of its line."""
    return _flag(record) == b"F"


def is_record_part(record: bytes) -> bool:
    return _flag(record) == b"P"


def _flag(record: bytes) -> bytes:
    fields = record.split(b" ", 3)
    return fields[2] if len(fields) == 4 else b""


class LineJoiner:
    """Turns chunks of a file into lines; keeps what is not whole yet."""

    def __init__(self) -> None:
        self._rest = b""
        self._parts: dict[str, list[bytes]] = {}
        self._sizes: dict[str, int] = {}
        self._last: dict[str, str] = {}

    def feed(self, chunk: bytes) -> list[LogLine]:
        *records, self._rest = (self._rest + chunk).split(b"\n")
        lines: list[LogLine] = []
        for record in records:
            fields = record.split(b" ", 3)
            if len(fields) != 4 or fields[1] not in _STREAMS or fields[2] not in (b"F", b"P"):
                # A record cut by a full disk.
                continue
            line = self._join(fields[0], _STREAMS[fields[1]], fields[2] == b"F", fields[3])
            if line is not None:
                lines.append(line)
        return lines

    def flush(self) -> list[LogLine]:
        """The lines that never got an end."""
        lines = [
            LogLine(self._last[stream], stream, b"".join(parts), partial=True)
            for stream, parts in self._parts.items()
        ]
        self._parts.clear()
        self._sizes.clear()
        return lines

    def _join(self, stamp: bytes, stream: str, is_end: bool, text: bytes) -> LogLine | None:
        timestamp = _utc(stamp.decode("ascii", errors="replace"))
        if is_end and stream not in self._parts:
            return LogLine(timestamp, stream, text)
        parts = self._parts.setdefault(stream, [])
        parts.append(text)
        size = self._sizes.get(stream, 0) + len(text)
        self._sizes[stream] = size
        self._last[stream] = timestamp
        if not is_end and size < MAX_LINE_BYTES:
            return None
        del self._parts[stream], self._sizes[stream]
        return LogLine(timestamp, stream, b"".join(parts), partial=not is_end)


def _utc(text: str) -> str:
    """conmon's local time with its offset, as UTC with nine digits."""
    seconds, rest = text[:19], text[19:]
    digits = rest[1:].split("+")[0].split("-")[0].split("Z")[0] if rest.startswith(".") else ""
    offset = rest[1 + len(digits) :] if digits else rest
    nanos = digits.ljust(_NANO_DIGITS, "0")[:_NANO_DIGITS]
    if offset not in ("Z", "+00:00", ""):
        try:
            sign = -1 if offset[0] == "-" else 1
            shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[4:6])) * sign
            seconds = (datetime.fromisoformat(seconds) - shift).isoformat()
        except ValueError:
            pass
    return f"{seconds}.{nanos}Z"
