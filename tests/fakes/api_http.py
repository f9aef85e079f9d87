"""The API on a unix socket over an in-memory cluster, and a plain HTTP client for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from swarm.api.app import application, serving
from tests.fakes.fake_backend import FakeBackend


class Http:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def ask(self, method: str, path: str, body=None, **options):
        """Status, decoded JSON (or None), headers."""
        if body is not None:
            options["json"] = body
        async with self.session.request(method, "http://swarm" + path, **options) as response:
            text = await response.read()
            return response.status, json.loads(text) if text else None, response.headers

    async def get(self, path: str, **query):
        status, found, _ = await self.ask("GET", path, params=query)
        assert status == 200, found
        return found

    async def refused(self, method: str, path: str, body=None, **options):
        """Status and message of an error."""
        status, found, headers = await self.ask(method, path, body, **options)
        assert status >= 400
        assert headers["Content-Type"] == "application/json"
        assert list(found) == ["message"]
        return status, found["message"]


@asynccontextmanager
async def serve(backend: FakeBackend, path: Path) -> AsyncIterator[Http]:
    """The API over `backend` on a socket at `path`, and a client of it."""
    connector = aiohttp.UnixConnector(path=str(path))
    async with (
        serving(application(backend), path),
        aiohttp.ClientSession(connector=connector) as session,
    ):
        yield Http(session)


def web_spec(name: str = "web", **more):
    """The smallest spec that clients post."""
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}},
        "Mode": {"Replicated": {}},
    } | more
