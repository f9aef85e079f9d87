"""What this version does not have: empty lists where clients look in passing, clear refusals elsewhere."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Handler, Route, answer
from swarm.base.errors import NotFound, Unsupported


def _nothing(value: object) -> Handler:
    async def handler(_: Call) -> web.Response:
        return answer(value)

    return handler


def _unknown(kind: str) -> Handler:
    async def handler(call: Call) -> web.Response:
        raise NotFound(kind, call.params["id"])

    return handler


def _refused(what: str) -> Handler:
    """`what` may name parts of the path in braces."""

    async def handler(call: Call) -> web.Response:
        raise Unsupported(f"{what.format(**call.params)} not supported by this version")

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
    Route("POST", "/containers/create", _refused("containers outside of services are")),
    Route("POST", "/build", _refused("building images is")),
    # What is left of Docker's paths, by their shape; the routes of containers and images come before.
    Route("POST", "/containers/{id}/{action}", _refused("{action} of a single container is")),
    Route("GET", "/containers/{id}/{action}", _refused("{action} of a container is")),
    Route("HEAD", "/containers/{id}/archive", _refused("copying from and to containers is")),
    Route("PUT", "/containers/{id}/archive", _refused("copying from and to containers is")),
    Route("DELETE", "/containers/{id}", _refused("removing a single container is")),
    Route("GET", "/images/{name*}/{action}", _refused("{action} of an image is")),
    Route("POST", "/images/{name*}/{action}", _refused("{action} of an image is")),
    Route("GET", "/images/{action}", _refused("{action} of images is")),
    Route("POST", "/{kind}/prune", _refused("pruning {kind} is")),
    Route("DELETE", "/volumes/{id}", _refused("removing volumes is")),
    Route("GET", "/system/df", _refused("counting disk usage is")),
    Route("POST", "/commit", _refused("making images of containers is")),
    Route("POST", "/auth", _refused("logging in to registries is")),
)
