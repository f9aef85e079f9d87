"""Events as `docker events`, docker-py and `swarm events` show them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import docker as docker_py
import pytest

from swarm.model.events import Event, Position
from tests.fakes.api_http import Http, serve
from tests.fakes.fake_backend import START, FakeBackend


def an_event(number: int, kind: str = "service", **attributes: str) -> Event:
    return Event(
        position=Position(number, kind, f"id{number}"),
        time=START + timedelta(seconds=number),
        type=kind,
        action="update",
        id=f"id{number}",
        attributes={"name": "web"} | attributes,
    )


@pytest.fixture
def events(cluster: FakeBackend) -> FakeBackend:
    task = {"service.name": "web", "service.id": "id1", "node.name": "h2"}
    cluster.events.happen(
        an_event(1, **{"replicas.old": "1", "replicas.new": "2"}),
        an_event(2, "node", name="h2"),
        an_event(3, "task", name="web.1.x", **task),
    )
    return cluster


PAST = {"since": "1767225600", "until": "1767225700"}


async def lines(http: Http, **query: str) -> list[dict]:
    async with http.session.get("http://swarm/v1.50/events", params=query) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_an_event_is_dockers_message(http: Http, events: FakeBackend) -> None:
    first, *_ = await lines(http, **PAST)
    assert first == {
        "Type": "service",
        "Action": "update",
        "Actor": {"ID": "id1", "Attributes": {"name": "web", "replicas.old": "1", "replicas.new": "2"}},
        "scope": "swarm",
        "time": 1767225601,
        "timeNano": 1767225601000000000,
        "revision": "1/service/id1",
    }


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"type": ["service", "task"]}, [1, 3]),
        ({"event": ["create"]}, []),
        ({"service": ["we"]}, [1, 3]),
        ({"node": {"h2": True}}, [2, 3]),
        ({"service": ["web"], "node": ["h2"]}, [3]),
        ({"scope": ["local"]}, []),
        ({"container": ["web"]}, []),
        ({"label": ["replicas.new=2"]}, [1]),
    ],
)
async def test_filters(http: Http, events: FakeBackend, filters, found) -> None:
    told = await lines(http, **PAST, filters=json.dumps(filters))
    assert [event["time"] - 1767225600 for event in told] == found


async def test_a_reader_goes_on_after_a_revision_and_hears_of_a_gap(http: Http, events: FakeBackend) -> None:
    told = await lines(http, after="2/node/id2", until="1767225700")
    assert [event["Type"] for event in told] == ["task"]
    events.events.ring.lose(5, START)
    told = await lines(http, after="3/task/id3", until="1767225700", filters='{"type":["node"]}')
    assert [(event["Type"], event["Action"]) for event in told] == [("cluster", "gap")]


async def test_what_cannot_be_asked_is_refused(http: Http, events: FakeBackend) -> None:
    path = "/events"
    assert await http.refused("GET", path, params={"filters": '{"colour":["red"]}'}) == (
        400,
        "invalid filter 'colour'",
    )
    assert (await http.refused("GET", path, params={"after": "yesterday"}))[0] == 400
    assert (await http.refused("GET", path, params={"after": "1", "since": "1"}))[0] == 400
    assert (await http.refused("GET", path, params={"since": "soon"}))[0] == 400


async def test_a_node_without_a_cluster_has_no_events(http: Http) -> None:
    status, message = await http.refused("GET", "/events")
    assert (status, "not a swarm manager" in message) == (503, True)


async def test_docker_py_reads_them(events: FakeBackend, tmp_path: Path) -> None:
    path = tmp_path / "py.sock"

    def read() -> list[dict]:
        client = docker_py.DockerClient(f"unix://{path}", timeout=10)
        try:
            return list(
                client.events(since=1767225600, until=1767225700, filters={"type": "node"}, decode=True)
            )
        finally:
            client.close()

    async with serve(events, path):
        (event,) = await asyncio.to_thread(read)
    assert event["Actor"]["Attributes"]["name"] == "h2"


async def ran(program: list[str], arguments: list[str], path: Path) -> str:
    host = f"unix://{path}"
    environment = os.environ | {
        "DOCKER_HOST": host,
        "SWARM_HOST": host,
        "TZ": "UTC",
        "HOME": str(path.parent),
    }
    process = await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out.decode()


OURS = [sys.executable, "-m", "swarm.cli.main"]


@pytest.mark.docker_client
@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker program")
@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--filter", "service=web"],
        ["--format", "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}"],
    ],
    ids=["plain", "filtered", "template"],
)
async def test_swarm_events_prints_what_docker_events_prints(
    events: FakeBackend, tmp_path: Path, more: list[str]
) -> None:
    path = tmp_path / "cli.sock"
    arguments = ["events", "--since", "1767225600", "--until", "1767225700", *more]
    async with serve(events, path):
        theirs = await ran(["docker"], arguments, path)
        ours = await ran(OURS, arguments, path)
    assert theirs
    assert ours == theirs


async def test_swarm_events_goes_on_after_what_was_heard(events: FakeBackend, tmp_path: Path) -> None:
    path = tmp_path / "cli.sock"
    async with serve(events, path):
        first = await ran(
            OURS, ["events", "--since", "1767225600", "--until", "1767225601", "--format", "json"], path
        )
        revision = json.loads(first.splitlines()[0])["revision"]
        rest = await ran(OURS, ["events", "--after", revision, "--until", "1767225700"], path)
    assert [line.split()[1] for line in rest.splitlines()] == ["node", "task"]
