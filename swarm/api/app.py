"""The HTTP application: paths to handlers, errors to answers, and the unix socket it listens on.

In: a `Backend`. Out: an aiohttp application that serves every path with and without a version prefix, 1.24 to
1.50, and `serving`, which binds it to a socket.

Invariant: every error is `{"message": ...}` with the type `application/json`; nothing else reaches a client.
"""

from __future__ import annotations

import grp
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from swarm import __version__
from swarm.api.backend import Backend
from swarm.api.call import Call, Route, answer
from swarm.api.hijack import IS_LAST
from swarm.api.routes import all_routes
from swarm.base.errors import SwarmError
from swarm.base.log import get_logger

API_VERSION = (1, 50)
MIN_API_VERSION = (1, 24)
MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of a JSON body; image archives are streamed and not counted."""
SOCKET_MODE = 0o660
SOCKET_GROUPS = ("docker", "swarm")
_SHUTDOWN_S = 2.0
_CLUSTER_PATHS = ("/services", "/tasks", "/nodes", "/networks", "/secrets", "/configs", "/events")
_BACKLOG = 512

_PREFIX = re.compile(r"/v([0-9]+)\.([0-9]+)(/.*)")
_log = get_logger("api")

_HEADERS = {
    "Api-Version": ".".join(map(str, API_VERSION)),
    "Ostype": "linux",
    "Server": f"Docker/{__version__} (linux)",
    "Docker-Experimental": "false",
}


class Table:
    """Routes by method; the first that matches wins."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._fixed: dict[tuple[str, str], Route] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{" in route.path:
                self._patterns.setdefault(route.method, []).append((_pattern(route.path), route))
            else:
                self._fixed[route.method, route.path] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, {}
        for pattern, route in self._patterns.get(method, ()):
            match = pattern.fullmatch(path)
            if match is not None:
                return route, match.groupdict()
        return None


def _pattern(path: str) -> re.Pattern[str]:
    """`/images/{name*}/json` as a regular expression."""
    parts = re.split(r"\{(\w+\*?)\}", path)
    text = re.escape(parts[0])
    for name, rest in zip(parts[1::2], parts[2::2], strict=True):
        kind = ".+" if name.endswith("*") else "[^/]+"
        text += f"(?P<{name.rstrip('*')}>{kind})" + re.escape(rest)
    return re.compile(text)


def application(backend: Backend) -> web.Application:
    """The API over `backend`."""
    table = Table(all_routes())

    async def dispatch(request: web.Request) -> web.StreamResponse:
        version, path = API_VERSION, request.path
        prefix = _PREFIX.fullmatch(path)
        if prefix is not None:
            version, path = (int(prefix[1]), int(prefix[2])), prefix[3]
        found = table.find(request.method, path)
        if found is None:
            return _error(404, "page not found")
        refusal = _refuse_version(version)
        if refusal is not None:
            return refusal
        route, params = found
        if backend.control is not None and _concerns_cluster(path):
            await backend.control.sync()
        call = Call(request=request, backend=backend, params=params, version=version)
        return await route.handler(call)

    app = web.Application(middlewares=[_translate_errors], client_max_size=MAX_BODY_BYTES)
    app.on_response_prepare.append(_add_headers)
    app.router.add_route("*", "/{path:.*}", dispatch)
    return app


def _concerns_cluster(path: str) -> bool:
    """Whether the answer tells or changes the cluster's state: it then needs a quorum."""
    return path in ("/swarm", "/swarm/update") or path.startswith(_CLUSTER_PATHS)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Streams are prepared by their handlers, so headers are added where every answer passes."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if IS_LAST in request:
        response.headers["Connection"] = "close"


def _refuse_version(version: tuple[int, int]) -> web.Response | None:
    text = f"client version {version[0]}.{version[1]}"
    if version > API_VERSION:
        return _error(400, f"{text} is too new. Maximum supported API version is {_dotted(API_VERSION)}")
    if version < MIN_API_VERSION:
        return _error(
            400,
            f"{text} is too old. Minimum supported API version is {_dotted(MIN_API_VERSION)}, "
            "please upgrade your client to a newer version",
        )
    return None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _error(status: int, message: str) -> web.Response:
    return answer({"message": message}, status)


@web.middleware
async def _translate_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except SwarmError as error:
        if error.http_code == 500:
            _log.info("api.refused", method=request.method, path=request.path, status=error.http_code)
        return _error(error.http_code, str(error))
    except web.HTTPRequestEntityTooLarge:
        return _error(413, f"request body is larger than {MAX_BODY_BYTES} bytes")
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except TimeoutError:
        return _error(500, "the request took too long: try again, and look at swarmd's log if it persists")
    except ConnectionResetError:
        # The client went away in the middle of its request: nobody reads this answer.
        _log.info("api.client.left", method=request.method, path=request.path)
        return _error(400, "the client went away")
    except Exception:
        _log.exception("api.failed", method=request.method, path=request.path)
        return _error(500, "internal error: see swarmd's log")


@asynccontextmanager
async def serving(app: web.Application, path: Path) -> AsyncIterator[None]:
    """Serve `app` on a unix socket at `path` while the block runs. A stale socket is replaced in one step."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S, keepalive_timeout=75.0)
    await runner.setup()
    try:
        listener, inode = _listen(path)
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        try:
            yield
        finally:
            _remove_socket(path, inode)
    finally:
        await runner.cleanup()


def _listen(path: Path) -> tuple[socket.socket, int]:
    """A listening socket that appears at `path` with its mode and group already right."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        mask = os.umask(0o777 & ~0o600)
        try:
            listener.bind(str(fresh))
        finally:
            os.umask(mask)
        group = _socket_group()
        if group is not None and os.geteuid() == 0:
            os.chown(fresh, -1, group)
        fresh.chmod(SOCKET_MODE)
        listener.listen(_BACKLOG)
        inode = fresh.stat().st_ino
        fresh.rename(path)
    except BaseException:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise
    return listener, inode


def _socket_group() -> int | None:
    for name in SOCKET_GROUPS:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            continue
    return None


def _remove_socket(path: Path, inode: int) -> None:
    """Unless another process has put its own socket there meanwhile."""
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return
