"""One request as a handler sees it, and the answers it may give.

In: an HTTP request whose path is matched. Out: JSON with exactly `application/json` as its type, since
Docker's client shows the raw body of an error that is labelled otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from swarm.api.backend import Backend, ClusterControl, NodeMembership, RegistryAuth
from swarm.api.filters import Filters, parse_filters
from swarm.base.errors import InvalidArgument, NotManager, Unavailable
from swarm.base.log import Secret, get_logger
from swarm.model.docker_json import Json

_log = get_logger("api")
_FALSE = frozenset({"", "0", "no", "false", "none"})
_DISCONNECT_CHECK_S = 1.0

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. "
    'Please use "docker swarm unlock" to unlock it.'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    request: web.Request
    backend: Backend
    params: Mapping[str, str]
    version: tuple[int, int]

    def text(self, name: str) -> str:
        return self.request.query.get(name, "")

    def flag(self, name: str) -> bool:
        return self.request.query.get(name, "").strip().lower() not in _FALSE

    def filters(self, allowed: frozenset[str]) -> Filters:
        return parse_filters(self.text("filters"), allowed)

    def object_version(self) -> int:
        """The `version` that an update was decided on."""
        text = self.text("version")
        if not text.isascii() or not text.isdigit():
            raise InvalidArgument(
                f"invalid version '{text}': strconv.ParseUint: parsing {json.dumps(text)}: invalid syntax"
            )
        return int(text)

    def control(self) -> ClusterControl:
        """Raises NotManager or Unavailable where this node serves no cluster state."""
        control = self.backend.control
        if control is not None:
            return control
        status = self.backend.swarm.status()
        if status.state is NodeMembership.LOCKED:
            raise Unavailable(LOCKED)
        if status.is_manager and status.error:
            raise Unavailable(status.error)
        raise NotManager(in_cluster=status.state in (NodeMembership.ACTIVE, NodeMembership.PENDING))

    async def body(self) -> Json:
        """The JSON object that was posted; an absent body reads as `{}`."""
        raw = await self.request.read()
        if not raw.strip():
            return {}
        if self.request.content_type != "application/json":
            raise InvalidArgument(
                f"unsupported Content-Type header ({self.request.headers.get('Content-Type', '')}): "
                "must be 'application/json'"
            )
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"invalid JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidArgument("invalid JSON: expected an object")
        return found

    def registry_auth(self) -> RegistryAuth | None:
        """`X-Registry-Auth`: base64url JSON; `{}` and an empty header are no login."""
        text = self.request.headers.get("X-Registry-Auth", "")
        if not text:
            return None
        try:
            found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, binascii.Error, RecursionError):
            raise InvalidArgument("invalid X-Registry-Auth header") from None
        if not isinstance(found, dict) or not found.get("username"):
            return None
        return RegistryAuth(username=str(found["username"]), password=Secret(str(found.get("password", ""))))


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is a pattern: `{name}` is one segment, `{name*}` any number of them."""

    method: str
    path: str
    handler: Handler


def answer(value: object, status: int = 200) -> web.Response:
    return raw_answer(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n", status)


def raw_answer(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def done(status: int = 200) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status)


def parse_moment(text: str) -> datetime | None:
    """`since` and `until`: unix seconds with an optional fraction, or RFC 3339; 0 and nothing are None."""
    if not text or text == "0":
        return None
    seconds, _, fraction = text.partition(".")
    try:
        if seconds.isdigit():
            moment = datetime.fromtimestamp(int(seconds), UTC)
            return moment + timedelta(microseconds=int((fraction + "000000")[:6]))
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise InvalidArgument(f"invalid time {text!r}: expected unix seconds") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def send_while_connected(
    call: Call, response: web.StreamResponse, chunks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send headers at once, then `chunks`; stop reading them soon after the client has gone."""
    await response.prepare(call.request)
    async with asyncio.TaskGroup() as group:
        pump = group.create_task(_pump(call, response, chunks))
        while not pump.done():
            await asyncio.wait({pump}, timeout=_DISCONNECT_CHECK_S)
            if call.request.transport is None or call.request.transport.is_closing():
                pump.cancel()
                break
    return response


async def _pump(call: Call, response: web.StreamResponse, chunks: AsyncIterator[bytes]) -> None:
    try:
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionResetError:
        return
    except Exception:
        # The answer has begun: cutting it off is the only way left to say that it is not whole.
        _log.exception("api.stream_failed", path=call.request.path)
        if call.request.transport is not None:
            call.request.transport.abort()
