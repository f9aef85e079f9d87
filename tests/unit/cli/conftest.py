"""A running fake API and a way to call the command in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from swarm.cli.main import main
from tests.fakes.cluster_objects import fake_cluster
from tests.fakes.fake_api import FakeApi, serve


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def api() -> FakeApi:
    return fake_cluster(datetime.now(UTC))  # noqa: TID251 - ages are shown relative to the real clock


@pytest.fixture
def host(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serve(api, tmp_path / "api.sock") as host:
        monkeypatch.setenv("SWARM_HOST", host)
        yield host


@pytest.fixture
def run(host: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Outcome:
        status = main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call
