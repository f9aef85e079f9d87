"""What this version does not have: empty lists where clients look in passing, clear refusals elsewhere."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Handler, Route, answer
from swarm.base.errors import NotFound, Unsupported


def _nothing(value: object) -> Handler:
    async def handler(_: Call) -> web.Response:
        return answer(value)

    return handler


def _nothing_in_swarm(value: object) -> Handler:
    async def handler(call: Call) -> web.Response:
        call.control()
        return answer(value)

    return handler


def _unknown(kind: str) -> Handler:
    async def handler(call: Call) -> web.Response:
        raise NotFound(kind, call.params["id"])

    return handler


def _refused(what: str) -> Handler:
    async def handler(_: Call) -> web.Response:
        raise Unsupported(f"{what} not supported by this version")

    return handler


async def unknown_volume(call: Call) -> web.Response:
    error = NotFound("volume", call.params["id"])
    error.args = (f"get {call.params['id']}: no such volume",)
    raise error


ROUTES = (
    Route("GET", "/volumes", _nothing({"Volumes": [], "Warnings": None})),
    Route("GET", "/volumes/{id}", unknown_volume),
    Route("POST", "/volumes/create", _refused("creating volumes is")),
    Route("GET", "/plugins", _nothing([])),
    Route("GET", "/plugins/{id*}/json", _unknown("plugin")),
    Route("GET", "/secrets", _nothing_in_swarm([])),
    Route("GET", "/secrets/{id}", _unknown("secret")),
    Route("POST", "/secrets/create", _refused("secrets are")),
    Route("GET", "/configs", _nothing_in_swarm([])),
    Route("GET", "/configs/{id}", _unknown("config")),
    Route("POST", "/configs/create", _refused("configs are")),
    Route("POST", "/networks/create", _refused("creating networks is")),
    Route("DELETE", "/networks/{id}", _refused("removing networks is")),
    Route("POST", "/containers/create", _refused("containers outside of services are")),
    Route("GET", "/events", _refused("events are")),
    Route("POST", "/build", _refused("building images is")),
)
