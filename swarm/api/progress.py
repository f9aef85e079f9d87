"""Work that takes a while and tells how far it is: JSON lines, as `docker pull` reads them.

In: the work, which is given a function to tell with. Out: an answer. What fails before the first line is an
error like any other; what fails later is the last line, since the status has been sent by then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from swarm.api.call import Call, send_while_connected
from swarm.base.errors import SwarmError
from swarm.model.docker_json import Json

Tell = Callable[[Json], None]


def json_line(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\r\n"


async def answer_with_progress(call: Call, work: Callable[[Tell], Awaitable[None]]) -> web.StreamResponse:
    """Do `work` while the client is there. Raises what it raises before it has told anything."""
    lines: asyncio.Queue[bytes | SwarmError | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(lambda value: lines.put_nowait(json_line(value)))
        except SwarmError as error:
            lines.put_nowait(error)
        lines.put_nowait(None)

    async with asyncio.TaskGroup() as group:
        running = group.create_task(run())
        first = await lines.get()
        if not isinstance(first, SwarmError):
            response = await _stream(call, first, lines)
            running.cancel()
            return response
    raise first


async def _stream(
    call: Call, first: bytes | None, lines: asyncio.Queue[bytes | SwarmError | None]
) -> web.StreamResponse:
    async def chunks() -> AsyncIterator[bytes]:
        item: bytes | SwarmError | None = first
        while item is not None:
            if isinstance(item, SwarmError):
                yield json_line({"errorDetail": {"message": str(item)}, "error": str(item)})
            else:
                yield item
            item = await lines.get()

    response = web.StreamResponse()
    response.content_type = "application/json"
    response.enable_chunked_encoding()
    return await send_while_connected(call, response, chunks())
