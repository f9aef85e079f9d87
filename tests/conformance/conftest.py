"""The API on a unix socket over an in-memory cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.api_http import Http, serve
from tests.fakes.fake_backend import FakeBackend


@pytest.fixture
def backend() -> FakeBackend:
    """A node outside of a swarm."""
    return FakeBackend()


@pytest.fixture
def cluster(backend: FakeBackend) -> FakeBackend:
    """The same node as manager of three."""
    backend.start_cluster()
    return backend


@pytest.fixture
async def http(backend: FakeBackend, tmp_path: Path) -> AsyncIterator[Http]:
    async with serve(backend, tmp_path / "swarm.sock") as client:
        yield client
