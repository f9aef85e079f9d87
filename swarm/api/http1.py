"""HTTP/1.1 over a unix socket, as much of it as a client of one daemon needs.

In: a method, a target and a body. Out: an `Answer` whose body is read whole or piece by piece. Invariant: an
answer that ends early raises `ConnectionError`, it never looks whole. The standard library's client does
more, and importing it (ssl, email) is paid by every command. Source: RFC 9112.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BufferedReader

SWITCHED = 101
"""After this status the connection is the two sides' own: what comes is read as a body without an end."""
_PIECE = 1 << 16
_MAX_LINE = 1 << 16
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quoted(text: str, safe: bytes = b"") -> str:
    """`text` percent-encoded, but for letters, digits, `-._~` and what is `safe`."""
    return "".join(chr(b) if b in _PLAIN or b in safe else f"%{b:02X}" for b in text.encode())


class Connection:
    """One connection; one exchange at a time."""

    def __init__(self, path: str, timeout_s: float | None) -> None:
        """Connects; `timeout_s` holds for each later wait too. Raises: OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def set_timeout(self, timeout_s: float | None) -> None:
        self._socket.settimeout(timeout_s)

    def send(self, data: bytes) -> None:
        """More bytes, on a connection that has been upgraded."""
        self._socket.sendall(data)

    def end_sending(self) -> None:
        """The other side reads the end; its own bytes still come. Gone already is fine."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def exchange(
        self, method: str, target: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str]
    ) -> Answer:
        """Send a request, a body that is not bytes in chunks, and return the answer once its head is there.

        Raises: ConnectionError, TimeoutError.
        """
        lines = [f"{method} {target} HTTP/1.1", "Host: swarm", *(f"{k}: {v}" for k, v in headers.items())]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        elif method != "GET":
            lines.append("Content-Length: 0")
        head = "".join(line + "\r\n" for line in (*lines, "")).encode()
        if isinstance(body, bytes) or body is None:
            self._socket.sendall(head + (body or b""))
        else:
            self._socket.sendall(head)
            for piece in body:
                self._socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self._socket.sendall(b"0\r\n\r\n")
        return Answer(self._stream)


class Answer:
    """A status and a body; the body is read once, in order."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._rest = b""
        version, self.status, headers = _read_head(stream)
        self._is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        self._left: int | None = 0 if self._is_chunked else None if length is None else int(length)
        if self.status in (204, 304):
            self._left, self._is_chunked = 0, False
        self._ended = self._left == 0 and not self._is_chunked
        self.will_close = (
            self._left is None or version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
        )

    def read(self) -> bytes:
        """All that is left of the body."""
        pieces = []
        while piece := self.read1(_PIECE):
            pieces.append(piece)
        return b"".join(pieces)

    def read1(self, size: int) -> bytes:
        """What has come of the body, up to `size` bytes; waits for some; nothing at its end."""
        if not self._rest:
            self._rest = self._next_piece()
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def readline(self, limit: int) -> bytes:
        """The body up to a newline, its end, or `limit` bytes."""
        while b"\n" not in self._rest and len(self._rest) < limit and (piece := self._next_piece()):
            self._rest += piece
        size = min(self._rest.find(b"\n") + 1 or len(self._rest), limit)
        line, self._rest = self._rest[:size], self._rest[size:]
        return line

    def _next_piece(self) -> bytes:
        if self._ended:
            return b""
        if self._is_chunked and self._left == 0 and not self._begin_chunk():
            return b""
        piece = self._stream.read1(_PIECE if self._left is None else min(self._left, _PIECE))
        if self._left is None:
            self._ended = not piece
            return piece
        if not piece:
            raise ConnectionError("the answer ended early")
        self._left -= len(piece)
        if self._left == 0:
            if self._is_chunked:
                _read_line(self._stream)
            else:
                self._ended = True
        return piece

    def _begin_chunk(self) -> bool:
        """Read a chunk's size; False at the last one."""
        try:
            self._left = int(_read_line(self._stream).partition(b";")[0], 16)
        except ValueError:
            raise ConnectionError("the answer is garbled") from None
        if self._left == 0:
            while _read_line(self._stream):
                continue
            self._ended = True
        return not self._ended


def _read_head(stream: BufferedReader) -> tuple[str, int, dict[str, str]]:
    """(version, status, headers by lower-case name), interim answers skipped but for the last: switched."""
    while True:
        version, _, rest = _read_line(stream).decode("latin-1").partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not status.isdigit():
            raise ConnectionError("the answer is not HTTP")
        headers: dict[str, str] = {}
        while line := _read_line(stream):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if int(status) >= 200 or int(status) == SWITCHED:
            return version, int(status), headers


def _read_line(stream: BufferedReader) -> bytes:
    """A line of the protocol, without its end."""
    line = stream.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise ConnectionError("the answer ended early")
    return line.rstrip(b"\r\n")
