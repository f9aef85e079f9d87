"""When a service counts as converged, and what is shown meanwhile."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from swarm.api.client import Client
from swarm.base.errors import SwarmError
from swarm.cli.converge import Convergence, Line
from swarm.cli.progress import PlainDisplay, TerminalDisplay, watch_service
from tests.fakes.cluster_objects import WEB, node, task, web
from tests.fakes.fake_api import FakeApi
from tests.unit.cli.conftest import Run

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NODES = [node(1, NOW), node(2, NOW), node(3, NOW, State="down")]
Json = dict[str, Any]


def a_task(slot: int, state: str, **more: Any) -> Json:
    return task(f"t{slot}{state}", slot, state, NOW - NOW, NOW, **({"node": NODES[0]["ID"]} | more))


def shown(lines: tuple[Line, ...]) -> list[str]:
    return [f"{line.id}: {line.text.strip()}" for line in lines]


def test_it_converges_when_all_run_and_stay_so_for_the_monitor_period() -> None:
    convergence, service = Convergence(), web(NOW)
    first = convergence.handle(service, [a_task(2, "starting")], NODES, 0)
    assert shown(first.lines) == ["overall progress: 0 out of 2 tasks", "1/2: starting", "2/2: "]
    both = [a_task(2, "running"), a_task(1, "running")]
    second = convergence.handle(service, both, NODES, 1)
    assert shown(second.lines) == [
        "overall progress: 2 out of 2 tasks",
        "1/2: running",
        "2/2: running",
        "verify: Waiting 5 seconds to verify that tasks are stable...",
    ]
    third = convergence.handle(service, both, NODES, 3.5)
    assert shown(third.lines) == ["verify: Waiting 3 seconds to verify that tasks are stable..."]
    assert not third.done
    last = convergence.handle(service, both, NODES, 6)
    assert last.done
    assert shown(last.lines) == [f"verify: Service {WEB} converged"]


def test_a_task_that_fails_during_the_monitor_starts_it_anew() -> None:
    convergence, service = Convergence(), web(NOW)
    both = [a_task(1, "running"), a_task(2, "running")]
    convergence.handle(service, both, NODES, 0)
    failed = convergence.handle(service, [both[0], a_task(2, "failed", err="exit 1")], NODES, 2)
    assert shown(failed.lines) == [
        "overall progress: 1 out of 2 tasks",
        "1/2: running",
        "2/2: exit 1",
        "verify: Detected task failure",
    ]
    convergence.handle(service, both, NODES, 3)
    assert not convergence.handle(service, both, NODES, 6).done
    assert convergence.handle(service, both, NODES, 8).done


def test_tasks_that_do_not_count() -> None:
    convergence, service = Convergence(), web(NOW)
    down = a_task(1, "running", node=NODES[2]["ID"])
    stopping = a_task(2, "running", desired="shutdown")
    assert shown(convergence.handle(service, [down, stopping], NODES, 0).lines)[0].endswith(
        "0 out of 2 tasks"
    )
    replaced = a_task(2, "preparing")
    lines = shown(convergence.handle(service, [stopping, replaced], NODES, 1).lines)
    assert "1/2: preparing" in lines


def test_an_unschedulable_task_shows_why_on_its_line() -> None:
    pending = a_task(1, "pending", node="", err="no suitable node (insufficient resources on 2 nodes)\nmore")
    lines = Convergence().handle(web(NOW), [pending], NODES, 0).lines
    assert shown(lines)[1] == "1/2: no suitable node (insufficient resources on 2 nodes) more"
    assert lines[1].is_error


def test_more_than_twenty_replicas_have_no_lines_of_their_own() -> None:
    service = web(NOW)
    service["Spec"]["Mode"]["Replicated"]["Replicas"] = 21
    assert shown(Convergence().handle(service, [], NODES, 0).lines) == ["overall progress: 0 out of 21 tasks"]


def test_no_replicas_converge_at_once() -> None:
    convergence, service = Convergence(), web(NOW)
    service["Spec"]["Mode"]["Replicated"]["Replicas"] = 0
    convergence.handle(service, [], NODES, 0)
    assert convergence.handle(service, [], NODES, 5).done


def test_a_global_service_waits_for_its_tasks() -> None:
    convergence, service = Convergence(), web(NOW)
    service["Spec"]["Mode"] = {"Global": {}}
    waiting = convergence.handle(service, [], NODES, 0)
    assert shown(waiting.lines) == ["overall progress: waiting for new tasks"]
    tasks = [a_task(0, "running", node=n["ID"]) for n in NODES[:2]]
    lines = shown(convergence.handle(service, tasks, NODES, 1).lines)
    assert lines[0] == "overall progress: 2 out of 2 tasks"
    assert f"{NODES[0]['ID'][:12]}: running" in lines
    assert convergence.handle(service, tasks, NODES, 6).done


@pytest.mark.parametrize(
    ("state", "failure"),
    [("paused", "service update paused: why"), ("rollback_paused", "service rollback paused: why")],
)
def test_a_paused_update_ends_the_wait(state: str, failure: str) -> None:
    service = web(NOW) | {"UpdateStatus": {"State": state, "Message": "why"}}
    found = Convergence().handle(service, [], NODES, 0).failure
    assert found == f"{failure} (mend the cause, then: swarm service update --resume web)"


def test_plain_output_says_each_thing_once() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    for count, left in ((0, 5), (0, 5), (1, 5), (1, 4), (1, 3)):
        verify = [Line(id="verify", text=f"Waiting {left} seconds")] if count else []
        bar = Line(id="1/1", text="running", current=9)
        display([Line(id="overall progress", text=f"{count} out of 1 tasks"), bar, *verify])
    display(
        [Line(id="1/1", text="no such image", is_error=True), Line(id="verify", text="Service x converged")]
    )
    assert out.getvalue() == (
        "overall progress: 0 out of 1 tasks\noverall progress: 1 out of 1 tasks\nverify: Waiting 5 seconds\n"
        "1/1: no such image\nverify: Service x converged\n"
    )


def test_a_terminal_is_redrawn_in_place_within_its_width() -> None:
    out = io.StringIO()
    wide = TerminalDisplay(out, 120)
    wide([Line(id="a", text="x"), Line(id="1/1", text="running", current=9)])
    wide([Line(id="a", text="y")])
    first, second = out.getvalue().split("\x1b[2A")
    assert first == f"\x1b[2K\ra: x \n\x1b[2K\r1/1: running [{'=' * 50}>] \n"
    assert second.startswith("\x1b[2K\ra: y \n")
    narrow = io.StringIO()
    TerminalDisplay(narrow, 12)([Line(id="1/1", text="running long text", current=3)])
    assert narrow.getvalue() == "\x1b[2K\r1/1: runnin\n"


def running(api: FakeApi) -> None:
    tasks = [a_task(1, "running"), a_task(2, "running")]
    service = web(NOW)
    service["Spec"]["UpdateConfig"] = {"Monitor": 1}
    api.put("GET /tasks", tasks)
    api.put("GET /services/[^/]+", service)


def test_watching_polls_until_the_service_has_converged(
    host: str, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    running(api)
    pauses: list[float] = []
    with Client(host) as client:
        watch_service(client, WEB, pause=pauses.append)
    assert pauses == [0.2]
    assert capsys.readouterr().out.endswith(f"verify: Service {WEB} converged\n")
    filters = json.loads(api.requests[1].query["filters"])
    assert filters == {"service": {WEB: True}, "_up-to-date": {"true": True}}


def test_an_interrupt_leaves_the_operation_running(
    host: str, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put("GET /tasks", [])

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with Client(host) as client:
        watch_service(client, WEB, pause=interrupt)
    out = capsys.readouterr().out
    assert out.endswith(
        f"\nOperation continuing in background.\nUse `swarm service ps {WEB}` to check progress.\n"
    )


def test_a_paused_update_fails_the_command(host: str, api: FakeApi) -> None:
    paused = web(NOW) | {"UpdateStatus": {"State": "paused", "Message": "task failed"}}
    api.put("GET /services/[^/]+", paused)
    with Client(host) as client, pytest.raises(SwarmError, match="service update paused: task failed"):
        watch_service(client, WEB)


def test_create_prints_the_id_then_its_progress(run: Run, api: FakeApi) -> None:
    running(api)
    outcome = run("service", "create", "--name", "new", "img")
    assert outcome.out.splitlines()[:2] == ["n" * 25, "overall progress: 2 out of 2 tasks"]
    assert run("service", "create", "--name", "new2", "-q", "img").out == "n" * 25 + "\n"


def test_the_wait_ends_when_a_slot_cannot_be_prepared_again_and_again() -> None:
    convergence, service = Convergence(), web(NOW)
    refused = [a_task(1, "rejected", err="No such image: nope:latest") | {"ID": f"r{n}"} for n in range(3)]
    assert not convergence.handle(service, refused[:2], NODES, 0).failure
    failure = convergence.handle(service, refused, NODES, 1).failure
    assert failure.startswith("service web does not start: No such image: nope:latest")
    assert not convergence.handle(service, [*refused, a_task(2, "running")], NODES, 2).failure
