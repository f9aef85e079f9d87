"""Versions of secrets and configs: ours, Docker has nothing like them. Data come in and are never shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from swarm.api.call import Call, Route, answer
from swarm.base.errors import InvalidArgument
from swarm.model.docker_json import Json, decode
from swarm.model.objects import Config, Secret
from swarm.model.payload_versions import VersionFacts
from swarm.model.specs import SecretSpec

Kind = type[Secret] | type[Config]
Handler = Callable[[Call], Awaitable[web.Response]]


def _add(kind: Kind) -> Handler:
    async def add(call: Call) -> web.Response:
        spec = decode(SecretSpec, {"Data": (await call.body()).get("Data")})
        number = await call.control().payload_versions.add(kind, call.params["id"], spec.data)
        return answer({"Version": number}, 201)

    return add


def _history(kind: Kind) -> Handler:
    async def history(call: Call) -> web.Response:
        found = call.control().payload_versions.history(kind, call.params["id"])
        return answer([_version(facts) for facts in found])

    return history


def _roll_back(kind: Kind) -> Handler:
    async def roll_back(call: Call) -> web.Response:
        wanted = call.text("to")
        if wanted and not (wanted.isascii() and wanted.isdigit()):
            raise InvalidArgument(f"invalid version {wanted!r}: it should be a number")
        versions = call.control().payload_versions
        number = await versions.roll_back(kind, call.params["id"], int(wanted or 0))
        return answer({"Version": number})

    return roll_back


def _prune(kind: Kind) -> Handler:
    async def prune(call: Call) -> web.Response:
        removed = await call.control().payload_versions.prune(kind, call.params["id"])
        return answer({"VersionsDeleted": list(removed)})

    return prune


def _version(facts: VersionFacts) -> Json:
    return {
        "Version": facts.number,
        "CreatedAt": facts.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if facts.created_at else None,
        "Current": facts.is_current,
        "Size": facts.size_bytes,
        "Tasks": list(facts.tasks),
    }


ROUTES = tuple(
    Route(method, f"/{folder}/{{id}}/{path}", handler(kind))
    for folder, kind in (("secrets", Secret), ("configs", Config))
    for method, path, handler in (
        ("POST", "versions", _add),
        ("GET", "versions", _history),
        ("POST", "rollback", _roll_back),
        ("POST", "versions/prune", _prune),
    )
)
