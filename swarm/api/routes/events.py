"""`/events`: what happens in the cluster, one JSON object per line, as it happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from aiohttp import web

from swarm.api.call import Call, Route, parse_moment, send_while_connected
from swarm.api.events import EVENT_FILTERS, event_json, is_asked_for
from swarm.base.errors import InvalidArgument, NotManager
from swarm.model.events import GAP, parse_position


async def events(call: Call) -> web.StreamResponse:
    call.control()
    if call.backend.events is None:
        raise NotManager(in_cluster=True)
    filters = call.filters(EVENT_FILTERS)
    after, since, until = (
        call.text("after"),
        parse_moment(call.text("since")),
        parse_moment(call.text("until")),
    )
    if after and since:
        raise InvalidArgument("after and since cannot be used together: each says where to begin")
    position = parse_position(after) if after else None
    found = call.backend.events.read(position or since, until)

    async def lines() -> AsyncIterator[bytes]:
        async for event in found:
            if is_asked_for(event, filters) or (position is not None and event.action == GAP):
                yield (
                    json.dumps(event_json(event), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
                )

    response = web.StreamResponse()
    response.content_type = "application/json"
    response.enable_chunked_encoding()
    return await send_while_connected(call, response, lines())


ROUTES = (Route("GET", "/events", events),)
