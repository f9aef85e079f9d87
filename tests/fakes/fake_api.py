"""A small Docker Engine API on a unix socket: fixed objects in, the requests it got out.

It answers as docs and recordings of the API say, so that the same fixture serves our client and an unmodified
`docker`. It keeps no logic: creating a service adds the object as posted, nothing runs.
"""

from __future__ import annotations

import json
import re
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Raw:
    """A streamed answer: pieces are sent as chunks."""

    pieces: list[bytes]
    content_type: str = "application/json"


@dataclass
class FakeApi:
    """`routes` maps "METHOD /path-regex" to JSON, Raw, (status, JSON), or a function of the request."""

    routes: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, Any]:
        self.requests.append(request)
        for route, value in self.routes.items():
            method, _, pattern = route.partition(" ")
            if method == request.method and re.fullmatch(pattern, request.path):
                found = value(request) if callable(value) else value
                return found if isinstance(found, tuple) else (200, found)
        return 404, {"message": "page not found"}

    def put(self, route: str, answer: Any) -> None:
        """Answer `route` with this from now on, before any other route that fits."""
        self.routes = {route: answer} | {key: value for key, value in self.routes.items() if key != route}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: tests read `requests` instead."""

    def address_string(self) -> str:
        return "unix"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            out = b""
            while size := int(self.rfile.readline(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self) -> None:
        raw = self._body()
        is_json = "json" in (self.headers.get("Content-Type") or "")
        parts = urlsplit(self.path)
        path = re.sub(r"^/v[0-9.]+", "", parts.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if path == "/_ping":
            self._send(200, b"" if self.command == "HEAD" else b"OK", "text/plain; charset=utf-8")
            return
        body = json.loads(raw) if raw and is_json else raw or None
        status, answer = self.server.api.answer(Request(self.command, path, query, body))
        if isinstance(answer, Raw):
            self._stream(answer)
        else:
            empty = answer is None or status == 204
            self._send(status, b"" if empty else json.dumps(answer).encode() + b"\n", "application/json")

    do_GET = do_POST = do_DELETE = do_HEAD = _handle

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answer: Raw) -> None:
        self.send_response(200)
        self.send_header("Api-Version", "1.50")
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in answer.pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    api: FakeApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may hang up once it has read what it wants: nothing for stderr, which tests read."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve(api: FakeApi, path: Path) -> Iterator[str]:
    """Serve `api` on a socket at `path` until the block ends; the value is the host string for a client."""
    with _Server(str(path), _Handler) as server:
        server.api = api
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


def frame(stream: int, payload: str) -> bytes:
    """One record of the multiplexed log stream."""
    data = payload.encode()
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def by_id_or_name(items: list[Json], kind: str) -> Callable[[Request], tuple[int, Any]]:
    """GET /<kind>s/{id}: full id, then name, then unique prefix."""

    def find(request: Request) -> tuple[int, Any]:
        key = request.path.split("/")[2]
        for item in items:
            if key in (
                item.get("ID"),
                item.get("Spec", {}).get("Name"),
                item.get("Description", {}).get("Hostname"),
            ):
                return 200, item
        matches = [item for item in items if str(item.get("ID", "")).startswith(key)]
        if len(matches) == 1:
            return 200, matches[0]
        return 404, {"message": f"{kind} {key} not found"}

    return find
