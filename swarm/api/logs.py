"""Log lines as the API streams them: messages in, framed bytes out.

Each frame is 8 bytes, `[stream, 0, 0, 0, length]`, and exactly one line: `[timestamp ][details ]message\n`.
The docker client cuts frames at these spaces. Source: Docker Engine API, moby daemon/logger and stdcopy.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from urllib.parse import quote

from aiohttp import web

from swarm.api.backend import LogMessage, LogOptions, LogStream
from swarm.api.call import Call, parse_moment, send_while_connected
from swarm.base.errors import InvalidArgument, SwarmError
from swarm.model.docker_json import timestamp

_STREAM_NUMBER = {LogStream.STDOUT: 1, LogStream.STDERR: 2}
_SYSTEM_ERROR = 3
"""The client stops and prints the payload: the only way to report an error once the answer has begun."""

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
_HEADER_BYTES = 8
_TYPED_SINCE = (1, 42)


def read_options(call: Call) -> LogOptions:
    """Raises InvalidArgument when no stream is asked for, or for a wrong number or time."""
    streams = frozenset(stream for stream in LogStream if call.flag(stream.value))
    if not streams:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    return LogOptions(
        streams=streams,
        follow=call.flag("follow"),
        tail=_read_tail(call.text("tail")),
        since=parse_moment(call.text("since")),
        until=parse_moment(call.text("until")),
    )


def _read_tail(text: str) -> int | None:
    if text in ("", "all"):
        return None
    try:
        number = int(text)
    except ValueError:
        raise InvalidArgument(f"invalid value for tail: {text!r}: expected a number or all") from None
    return None if number < 0 else number


def frame(message: LogMessage, *, timestamps: bool, details: bool) -> bytes:
    """One line as one frame; `details` are the task's coordinates, which `service logs` needs."""
    payload = b""
    if timestamps:
        payload += timestamp(message.timestamp).encode() + b" "
    if details:
        payload += _details(message).encode() + b" "
    payload += message.data + b"\n"
    return _framed(_STREAM_NUMBER[message.stream], payload)


def _framed(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def _details(message: LogMessage) -> str:
    found = {
        "com.docker.swarm.node.id": message.node_id,
        "com.docker.swarm.service.id": message.service_id,
        "com.docker.swarm.task.id": message.task_id,
    }
    return ",".join(f"{key}={quote(value, safe='')}" for key, value in found.items())


async def stream_logs(
    call: Call, messages: AsyncIterator[LogMessage], *, is_terminal: bool = False
) -> web.StreamResponse:
    """Answer with the messages; the headers go out before the first line. A terminal's are not framed."""
    timestamps, details = call.flag("timestamps"), call.flag("details")
    response = web.StreamResponse()
    if call.version >= _TYPED_SINCE:
        response.content_type = RAW if is_terminal else MULTIPLEXED
    response.enable_chunked_encoding()

    async def frames() -> AsyncIterator[bytes]:
        try:
            async for message in messages:
                framed = frame(message, timestamps=timestamps, details=details)
                yield framed[_HEADER_BYTES:] if is_terminal else framed
        except SwarmError as error:
            yield str(error).encode() if is_terminal else _framed(_SYSTEM_ERROR, str(error).encode())

    return await send_while_connected(call, response, frames())
