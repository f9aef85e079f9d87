"""The HTTP client of the `swarm` command: requests in; decoded JSON, streams or one clear exception out.

It speaks the Docker Engine API over a unix socket and imports little, since every import is paid at each
start of the command. One connection is kept and reused; a stream gets a connection of its own,
so that requests can be made while it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, TypeAlias

from swarm.api.http1 import Answer, Connection, quoted
from swarm.base.errors import InvalidArgument, SwarmError

JsonValue: TypeAlias = Any  # what json.loads returns

DEFAULT_HOST = "unix:///run/swarm/swarm.sock"
API_PREFIX = "/v1.50"

# The server gives itself 20 s for a join and 25 s for a write without a leader: this is the last resort.
REQUEST_TIMEOUT_S = 120.0
_MAX_LINE = 16 << 20


class ApiError(SwarmError):
    """The daemon refused; `status` is its HTTP code and `message` its sentence."""

    def __init__(self, status: int, message: str) -> None:
        # The daemon speaks Docker's sentences; whoever reads this one need not have `docker`.
        super().__init__(f"Error response from daemon: {message.replace('docker swarm', 'swarm')}")
        self.status = status
        self.message = message


class CannotConnect(SwarmError):
    """Nobody answers on the socket."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(
            f"Cannot connect to the swarm daemon at {host}. Is swarmd running? ({reason}; "
            "start it with `systemctl start swarmd`, or run `swarmd` as root)"
        )


def socket_path(host: str) -> str:
    """The path in `unix:///path`; a bare absolute path is taken too.

    Raises:
        InvalidArgument: another scheme.
    """
    if host.startswith("unix://"):
        return host.removeprefix("unix://")
    if host.startswith("/"):
        return host
    raise InvalidArgument(f"unable to parse host {host!r}: only unix:///path/to/swarm.sock is supported")


class Client:
    """A client of one daemon. Not thread-safe; close it, or use it in a `with` block."""

    def __init__(self, host: str = DEFAULT_HOST, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.host = host
        self._path = socket_path(host)
        self._timeout_s = timeout_s
        self._kept: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, **query: object) -> JsonValue:
        return self._json("GET", _target(path, query), None, headers)

    def post(
        self, path: str, body: object = None, *, headers: Mapping[str, str] | None = None, **query: object
    ) -> JsonValue:
        return self._json("POST", _target(path, query), body, headers)

    def delete(self, path: str, **query: object) -> JsonValue:
        return self._json("DELETE", _target(path, query), None, None)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        body: IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Iterator[Answer]:
        """An answer to be read piece by piece, on its own connection and without a deadline between pieces.

        Raises:
            ApiError: the daemon refused before the first byte.
        """
        sent = {"Content-Type": "application/x-tar"} if body is not None else {}
        sent |= headers or {}
        pieces = _chunks(body) if body is not None else None
        connection = self._connect()
        try:
            answer = self._exchange(connection, method, _target(path, query), pieces, sent)
            if answer.status >= 400:
                raise _refusal(answer.status, answer.read())
            connection.set_timeout(None)
            yield answer
        except ConnectionError as error:
            raise SwarmError(f"connection to {self.host} was lost: {error}") from error
        finally:
            connection.close()

    @contextmanager
    def upgraded(self, path: str, body: object) -> Iterator[tuple[Connection, Answer]]:
        """A connection of its own to send on and read from as one likes, after a POST.

        Raises:
            ApiError: the daemon refused.
        """
        connection = self._connect()
        headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
        try:
            encoded = json.dumps(body).encode()
            answer = self._exchange(connection, "POST", _target(path, {}), encoded, headers)
            if answer.status >= 400:
                raise _refusal(answer.status, answer.read())
            connection.set_timeout(None)
            yield connection, answer
        except ConnectionError as error:
            raise SwarmError(f"connection to {self.host} was lost: {error}") from error
        finally:
            connection.close()

    def json_lines(
        self, method: str, path: str, body: IO[bytes] | None = None, **query: object
    ) -> Iterator[dict[str, Any]]:
        """The objects of a progress stream, until it ends.

        Raises:
            ApiError: the daemon refused, at once or in the stream.
        """
        with self.stream(method, path, body, None, **query) as answer:
            while line := answer.readline(_MAX_LINE):
                if not line.strip():
                    continue
                record = json.loads(line)
                if "error" in record:
                    raise ApiError(500, str(record["error"]))
                yield record

    def _json(self, method: str, target: str, body: object, headers: Mapping[str, str] | None) -> JsonValue:
        encoded = None if body is None else json.dumps(body).encode()
        sent = {} if body is None else {"Content-Type": "application/json"}
        status, content = self._request(method, target, encoded, sent | dict(headers or {}))
        if status >= 400:
            raise _refusal(status, content)
        if not content.strip():
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise SwarmError(f"unreadable answer from {self.host} to {method} {target}: {error}") from error

    def _request(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        reused = self._kept is not None
        connection = self._kept or self._connect()
        self._kept = None
        try:
            answer = self._exchange(connection, method, target, body, headers)
            content = answer.read()
        except ConnectionError as error:
            connection.close()
            if reused and method == "GET":  # the daemon closed the idle connection: reading again is harmless
                return self._request(method, target, body, headers)
            raise SwarmError(f"connection to {self.host} was lost: {error}") from error
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self._kept = connection
        return answer.status, content

    def _connect(self) -> Connection:
        try:
            return Connection(self._path, self._timeout_s)
        except OSError as error:
            raise CannotConnect(self.host, error.strerror or str(error)) from error

    def _exchange(
        self,
        connection: Connection,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None,
        headers: dict[str, str],
    ) -> Answer:
        try:
            return connection.exchange(method, target, body, headers)
        except TimeoutError as error:
            connection.close()
            raise SwarmError(f"no answer from {self.host} within {self._timeout_s:g} s") from error


def host_from_environment() -> str:
    return os.environ.get("SWARM_HOST") or DEFAULT_HOST


def read_frames(answer: Answer) -> Iterator[tuple[int, bytes]]:
    """The records of a multiplexed log stream: (1 stdout or 2 stderr, payload).

    Raises:
        SwarmError: the daemon reports an error in the stream, or it ends inside a record.
    """
    while header := _read_exactly(answer, 8):
        size = int.from_bytes(header[4:8], "big")
        payload = _read_exactly(answer, size) if size else b""
        if header[0] == 3:
            raise SwarmError(f"error from daemon in stream: {payload.decode(errors='replace')}")
        yield header[0], payload


def _read_exactly(answer: Answer, size: int) -> bytes:
    """`size` bytes, or none at the end of the stream."""
    parts, missing = [], size
    while missing:
        part = answer.read1(missing)
        if not part:
            if missing == size:
                return b""
            raise SwarmError("the log stream ended in the middle of a record")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _chunks(body: IO[bytes]) -> Iterator[bytes]:
    while piece := body.read(1 << 16):
        yield piece


def _target(path: str, query: Mapping[str, object]) -> str:
    """The request target. None is left out; booleans are 1 or 0; filters and other mappings are JSON."""
    pairs = []
    for key, value in query.items():
        if value is None:
            continue
        if isinstance(value, bool):
            text = "1" if value else "0"
        else:
            text = json.dumps(value) if isinstance(value, Mapping) else str(value)
        pairs.append(f"{quoted(key)}={quoted(text)}")
    return API_PREFIX + quoted(path, safe=b"/:@") + ("?" + "&".join(pairs) if pairs else "")


def _refusal(status: int, content: bytes) -> ApiError:
    text = content.decode(errors="replace").strip()
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text or f"the daemon answered {status} without a reason"
    return ApiError(status, message)
