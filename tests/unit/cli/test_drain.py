"""`node update --availability drain --wait`."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.cli import drain
from tests.fakes.fake_api import FakeApi
from tests.unit.cli.conftest import Run


def a_task(slot: int, state: str) -> dict[str, Any]:
    return {"ID": f"t{slot}", "ServiceID": "s1", "NodeID": "n9", "Slot": slot, "Status": {"State": state}}


@pytest.fixture
def draining(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """The node's tasks, look by look; the last stays."""
    monkeypatch.setattr(drain, "_LOOK_EVERY_S", 0)
    looks: list[list[dict[str, Any]]] = []
    node = {
        "ID": "n9",
        "Version": {"Index": 5},
        "Spec": {"Labels": {}, "Role": "worker", "Availability": "active"},
        "Description": {"Hostname": "h9"},
        "Status": {"State": "ready"},
    }
    api.put("GET /nodes/(h9|n9)", node)
    api.put("POST /nodes/n9/update", None)
    api.put("GET /services/s1", {"ID": "s1", "Spec": {"Name": "web"}})
    api.put("GET /tasks", lambda _: looks.pop(0) if len(looks) > 1 else looks[0])
    return looks


DRAIN = ("node", "update", "--availability", "drain", "--wait")


def test_it_returns_when_no_task_is_left_and_says_what_was(run: Run, draining: list[Any]) -> None:
    draining += [
        [a_task(1, "running"), a_task(2, "running"), a_task(3, "shutdown")],
        [a_task(1, "running"), a_task(2, "running")],
        [a_task(2, "running")],
        [a_task(1, "shutdown"), a_task(2, "complete")],
    ]
    found = run(*DRAIN, "h9")
    assert (found.status, found.out) == (0, "h9\n")
    assert found.err == "2 tasks are left on h9: web.1, web.2\n1 task is left on h9: web.2\n"


def test_it_gives_up_and_says_what_remains(run: Run, draining: list[Any]) -> None:
    draining += [[a_task(n, "running") for n in range(1, 8)]]
    found = run(*DRAIN, "--timeout", "1ms", "h9")
    assert found.status == 1
    assert found.err.splitlines()[-1] == (
        "gave up after 0.001 s: 7 tasks are left on h9: web.1, web.2, web.3, web.4, web.5 and 2 others; "
        "see swarm service explain web"
    )


def test_a_node_that_is_down_tells_nothing(run: Run, api: FakeApi, draining: list[Any]) -> None:
    draining += [[a_task(1, "running")]]
    node = api.routes["GET /nodes/(h9|n9)"]
    node["Status"] = {"State": "down"}
    found = run(*DRAIN, "h9")
    assert (found.status, "h9 is down" in found.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--wait", "h9"), "--wait goes with --availability drain"),
        (("--availability", "drain", "--timeout", "1s", "h9"), "--timeout goes with --wait"),
    ],
)
def test_flags_that_mean_nothing_alone(run: Run, arguments: tuple[str, ...], message: str) -> None:
    found = run("node", "update", *arguments)
    assert (found.status, found.err) == (1, message + "\n")
