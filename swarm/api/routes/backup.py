"""`/swarm/backup` and `/swarm/restore`: ours, Docker has no such thing.

A backup is asked for with `{"Passphrase": "..."}` and answered as one encrypted file. To restore, the file is
the body; where the manager is to be and what opens the file come as base64url JSON in `X-Swarm-Restore`, as
Docker sends registry logins: `{"Key", "AdvertiseAddr", "ListenAddr", "DataPathAddr"}`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json

from aiohttp import web

from swarm.api.backend import InitRequest, RestoreRequest
from swarm.api.call import Call, Route, answer
from swarm.base.errors import InvalidArgument
from swarm.base.log import Secret
from swarm.model.docker_json import Json

HEADER = "X-Swarm-Restore"
LIMIT_BYTES = 1 << 30


async def backup(call: Call) -> web.Response:
    control = call.control()
    await control.sync()
    passphrase = Secret(_text(await call.body(), "Passphrase"))
    content = await asyncio.to_thread(call.backend.swarm.backup, passphrase)
    return web.Response(body=content, content_type="application/octet-stream")


async def restore(call: Call) -> web.Response:
    wanted = _wanted(call.request.headers.get(HEADER, ""))
    archive = bytearray()
    async for piece in call.request.content.iter_chunked(1 << 20):
        archive += piece
        if len(archive) > LIMIT_BYTES:
            raise InvalidArgument(f"the backup is larger than {LIMIT_BYTES} bytes")
    place = InitRequest(
        advertise_addr=_text(wanted, "AdvertiseAddr"),
        listen_addr=_text(wanted, "ListenAddr"),
        data_path_addr=_text(wanted, "DataPathAddr"),
    )
    request = RestoreRequest(place=place, archive=bytes(archive), key=Secret(_text(wanted, "Key")))
    return answer(await call.backend.swarm.restore(request))


def _wanted(header: str) -> Json:
    try:
        found = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidArgument(f"invalid {HEADER} header: expected base64url JSON")
    return found


def _text(body: Json, key: str) -> str:
    value = body.get(key) or ""
    if not isinstance(value, str):
        raise InvalidArgument(f"invalid {key}: expected a text")
    return value


ROUTES = (
    Route("POST", "/swarm/backup", backup),
    Route("POST", "/swarm/restore", restore),
)
