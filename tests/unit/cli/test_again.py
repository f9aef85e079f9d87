"""Changes go on what is there, also when the leader writes it between our reading and our writing."""

from __future__ import annotations

import pytest

from swarm.cli.again import TRIES
from tests.fakes.fake_api import FakeApi, Request
from tests.unit.cli.conftest import Run

CHANGES = [
    (("service", "scale", "-d", "web=4"), "/services/[^/]+/update"),
    (("service", "update", "-d", "--env-add", "A=1", "web"), "/services/[^/]+/update"),
    (("node", "update", "--label-add", "a=b", "h2"), "/nodes/[^/]+/update"),
    (("node", "demote", "h1"), "/nodes/[^/]+/update"),
    (("update", "--task-history-limit", "3"), "/swarm/update"),
    (("ca", "--rotate", "-d"), "/swarm/update"),
]


def refused(api: FakeApi, path: str, times: int) -> list[Request]:
    """The first so many writes come too late; the list has all of them."""
    seen: list[Request] = []

    def answer(request: Request) -> object:
        seen.append(request)
        late = (500, {"message": "rpc error: code = Unknown desc = update out of sequence"})
        return late if len(seen) <= times else {}

    api.put(f"POST {path}", answer)
    return seen


@pytest.mark.parametrize(
    ("command", "path"), CHANGES, ids=lambda value: value[:2] if isinstance(value, tuple) else ""
)
def test_a_change_is_made_anew(api: FakeApi, run: Run, command: tuple[str, ...], path: str) -> None:
    seen = refused(api, path, 2)
    assert run(*command).status == 0
    assert len(seen) == 3
    reads = [request for request in api.requests if request.method == "GET"]
    assert len(reads) >= 3, "each time of what is there then"


def test_it_is_not_tried_for_ever_nor_for_other_reasons(api: FakeApi, run: Run) -> None:
    seen = refused(api, "/nodes/[^/]+/update", 100)
    assert "update out of sequence" in run("node", "demote", "h1").err
    assert len(seen) == TRIES
    api.put("POST /nodes/[^/]+/update", (400, {"message": "no"}))
    assert "no" in run("node", "demote", "h1").err


def test_a_rollback_is_of_what_was_seen(api: FakeApi, run: Run) -> None:
    seen = refused(api, "/services/[^/]+/update", 1)
    assert "update out of sequence" in run("service", "rollback", "-d", "web").err
    assert len(seen) == 1
