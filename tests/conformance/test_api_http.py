"""The rules that every client of the Docker Engine API relies on, request by request."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from swarm.api.app import application, serving
from swarm.api.backend import LogStream, NodeMembership
from swarm.base.errors import NotFound, SwarmError, Unavailable
from swarm.cli.rows import task_name
from swarm.model.objects import Task
from swarm.model.types import Version
from tests.fakes.api_http import Http, web_spec
from tests.fakes.fake_backend import FakeBackend, a_line

NOT_IN_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
SWARM_PATHS = (
    ("GET", "/nodes"),
    ("GET", "/services"),
    ("GET", "/tasks"),
    ("GET", "/swarm"),
    ("POST", "/services/create"),
    ("DELETE", "/services/web"),
    ("POST", "/nodes/x/update"),
    ("GET", "/secrets"),
    ("GET", "/configs"),
    ("GET", "/services/web/logs"),
)


# --- every answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_ping(http: Http, cluster: FakeBackend, method: str) -> None:
    async with http.session.request(method, "http://swarm/_ping") as response:
        assert response.status == 200
        assert await response.read() == (b"OK" if method == "GET" else b"")
        assert response.headers["Api-Version"] == "1.50"
        assert response.headers["Ostype"] == "linux"
        assert response.headers["Docker-Experimental"] == "false"
        assert response.headers["Swarm"] == "active/manager"
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "Builder-Version" not in response.headers


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.50"])
async def test_paths_exist_with_and_without_a_version(http: Http, prefix: str) -> None:
    status, found, headers = await http.ask("GET", f"{prefix}/version")
    assert status == 200
    assert found["ApiVersion"] == "1.50"
    assert found["MinAPIVersion"] == "1.24"
    assert headers["Content-Type"] == "application/json"
    assert headers["Server"].startswith("Docker/")
    assert all(isinstance(value, str) for value in found["Components"][0]["Details"].values())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1.99/nodes", "client version 1.99 is too new. Maximum supported API version is 1.50"),
        (
            "/v1.10/nodes",
            "client version 1.10 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
    ],
)
async def test_versions_out_of_range(http: Http, path: str, message: str) -> None:
    assert await http.refused("GET", path) == (400, message)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nope"), ("PUT", "/services"), ("GET", "/v1.50/nope"), ("GET", "/")]
)
async def test_unknown_paths_and_methods(http: Http, method: str, path: str) -> None:
    assert await http.refused(method, path) == (404, "page not found")


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("POST", "/containers/c1/stop", "stop of a single container is"),
        ("GET", "/containers/c1/top", "top of a container is"),
        ("DELETE", "/containers/c1", "removing a single container is"),
        ("POST", "/images/r:5000/web:1/push", "push of an image is"),
        ("GET", "/images/web/history", "history of an image is"),
        ("POST", "/containers/prune", "pruning containers is"),
        ("GET", "/system/df", "counting disk usage is"),
    ],
)
async def test_what_docker_has_and_we_have_not(http: Http, method: str, path: str, what: str) -> None:
    assert await http.refused(method, path) == (501, f"{what} not supported by this version")


@pytest.mark.parametrize(("method", "path"), SWARM_PATHS)
async def test_outside_of_a_swarm(http: Http, method: str, path: str) -> None:
    assert await http.refused(method, path) == (503, NOT_IN_SWARM)


async def test_on_a_worker(http: Http, backend: FakeBackend) -> None:
    backend.swarm.state = NodeMembership.ACTIVE
    status, message = await http.refused("GET", "/nodes")
    assert status == 503
    assert "Worker nodes can't be used to view or modify cluster state" in message


async def test_a_locked_node(http: Http, backend: FakeBackend) -> None:
    backend.swarm.state = NodeMembership.LOCKED
    status, message = await http.refused("GET", "/services")
    assert (status, message[:41]) == (503, "Swarm is encrypted and needs to be unlock")
    assert (await http.get("/info"))["Swarm"]["LocalNodeState"] == "locked"


async def test_errors_that_nobody_expected_tell_no_secrets(
    http: Http, cluster: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("internal detail")

    monkeypatch.setattr(cluster.control, "cluster", fail, raising=False)
    assert await http.refused("GET", "/swarm") == (500, "internal error: see swarmd's log")


@pytest.mark.parametrize(
    ("body", "options", "status", "message"),
    [
        (b"{", {}, 400, "invalid JSON: "),
        (b"[]", {}, 400, "invalid JSON: expected an object"),
        (b"[" * 200_000, {}, 400, "invalid JSON: "),
        (b"{}", {"Content-Type": "text/plain"}, 400, "unsupported Content-Type header (text/plain)"),
        (b" " * (5 << 20), {}, 413, "request body is larger than"),
    ],
)
async def test_bad_bodies(http: Http, cluster: FakeBackend, body, options, status, message) -> None:
    headers = {"Content-Type": "application/json"} | options
    found = await http.refused("POST", "/services/create", data=io.BytesIO(body), headers=headers)
    assert found[0] == status
    assert found[1].startswith(message)


# --- services and tasks ---------------------------------------------------------------------------------


async def create(http: Http, name: str = "web", **more) -> str:
    status, found, _ = await http.ask("POST", "/services/create", web_spec(name, **more))
    assert status == 201, found
    return found["ID"]


async def test_a_service_is_echoed_as_posted_with_its_replicas(http: Http, cluster: FakeBackend) -> None:
    service_id = await create(http)
    found = await http.get("/services/web")
    assert found["ID"] == service_id
    assert found["Spec"] == {
        "Name": "web",
        "Labels": {},
        "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}, "ForceUpdate": 0},
        "Mode": {"Replicated": {"Replicas": 1}},
    }
    assert found["Endpoint"] == {"Spec": {}}
    assert "ServiceStatus" not in (await http.get("/services"))[0]
    defaults = await http.get("/services/web", insertDefaults="true")
    assert defaults["Spec"]["RollbackConfig"]["Order"] == "stop-first"
    assert "RollbackConfig" not in (await http.get("/services/web"))["Spec"]


async def test_counts_only_when_asked(http: Http, cluster: FakeBackend) -> None:
    await create(http, Mode={"Replicated": {"Replicas": 5}})
    cluster.run_tasks("web", 3)
    (found,) = await http.get("/services", status="true")
    assert found["ServiceStatus"] == {"RunningTasks": 3, "DesiredTasks": 5, "CompletedTasks": 0}


async def test_update_wants_the_version_and_answers_an_object(http: Http, cluster: FakeBackend) -> None:
    await create(http)
    found = await http.get("/services/web")
    spec = found["Spec"] | {"Mode": {"Replicated": {"Replicas": 4}}}
    status, message = await http.refused("POST", "/services/web/update", spec)
    assert status == 400
    assert message == "invalid version '': strconv.ParseUint: parsing \"\": invalid syntax"
    query = {"version": str(found["Version"]["Index"])}
    status, answer, _ = await http.ask("POST", "/services/web/update", spec, params=query)
    assert (status, answer) == (200, {"Warnings": None})
    after = await http.get("/services/web")
    assert after["Spec"]["Mode"] == {"Replicated": {"Replicas": 4}}
    assert after["PreviousSpec"] == found["Spec"]
    assert "UpdateStatus" not in after
    status, message = await http.refused("POST", "/services/web/update", spec, params=query)
    assert (status, message.endswith("update out of sequence")) == (500, True)


async def test_names_prefixes_and_ambiguity(http: Http, cluster: FakeBackend) -> None:
    first, second = await create(http, "web"), await create(http, "db")
    assert (await http.get(f"/services/{first}"))["ID"] == first
    assert (await http.refused("GET", f"/services/{first[:10]}")) == (
        400,
        f"service {first[:10]} is ambiguous (2 matches found)",
    )
    assert await http.refused("GET", "/services/nope") == (404, "service nope not found")
    assert await http.refused("DELETE", "/services/nope") == (404, "service nope not found")
    status, found, _ = await http.ask("DELETE", f"/services/{second}")
    assert (status, found) == (200, None)


async def test_refused_creates(http: Http, cluster: FakeBackend) -> None:
    await create(http)
    assert await http.refused("POST", "/services/create", web_spec()) == (
        409,
        "name conflicts with an existing object: service web already exists",
    )
    bad = web_spec("two", TaskTemplate={"ContainerSpec": {"Image": "x", "CredentialSpec": {"File": "s"}}})
    assert await http.refused("POST", "/services/create", bad) == (
        400,
        "TaskTemplate.ContainerSpec.CredentialSpec is not supported by this version",
    )


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"name": ["we"]}, ["web"]),
        ({"name": {"we": True, "d": True}}, ["web", "db"]),
        ({"label": ["tier=front"]}, ["web"]),
        ({"label": ["tier", "tier=back"]}, []),
        ({"mode": ["global"]}, ["db"]),
        ({"id": ["zzz"]}, []),
    ],
)
async def test_service_filters(http: Http, cluster: FakeBackend, filters, names) -> None:
    await create(http, "web", Labels={"tier": "front"})
    await create(http, "db", Mode={"Global": {}})
    found = await http.get("/services", filters=json.dumps(filters))
    assert [service["Spec"]["Name"] for service in found] == names


async def test_a_wrong_filter(http: Http, cluster: FakeBackend) -> None:
    for path in ("/services", "/tasks", "/nodes", "/networks", "/images/json", "/containers/json"):
        found = await http.refused("GET", path, params={"filters": '{"bogus":["x"]}'})
        assert found == (400, "invalid filter 'bogus'")


async def test_a_jobs_slots_are_counted_from_0_and_a_nodes_task_has_none(
    http: Http, cluster: FakeBackend
) -> None:
    await create(http, "job")
    cluster.run_tasks("job", 2)
    for task in cluster.control.view.list(Task):
        cluster.store.put(replace(task, job_iteration=Version(index=1), slot=task.slot))
    found = sorted(await http.get("/tasks"), key=lambda task: task["Slot"])
    assert [task["Slot"] for task in found] == [0, 1]
    assert [task_name(task, "job") for task in found] == ["job.1", "job.2"]
    for task in cluster.control.view.list(Task):
        cluster.store.put(replace(task, slot=0))
    found = await http.get("/tasks")
    assert all("Slot" not in task for task in found)
    assert [task_name(task, "job") for task in found] == [f"job.{task['NodeID']}" for task in found]


async def test_tasks(http: Http, cluster: FakeBackend) -> None:
    service_id = await create(http)
    cluster.run_tasks("web", 3)
    tasks = await http.get("/tasks", filters=json.dumps({"service": [service_id]}))
    assert [task["Slot"] for task in tasks] == [1, 2, 3]
    task = tasks[0]
    assert task["ServiceID"] == service_id
    assert task["Spec"]["ContainerSpec"]["Image"] == "web:1"
    assert task["Status"]["State"] == "running"
    assert task["Status"]["ContainerStatus"] == {"ContainerID": task["ID"], "PID": 7, "ExitCode": 0}
    assert task["DesiredState"] == "running"
    assert task["NetworksAttachments"][0]["Addresses"] == ["10.0.1.1/20"]
    assert (await http.get(f"/tasks/{task['ID']}")) == task
    assert await http.refused("GET", "/tasks/nope") == (404, "task nope not found")


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"service": ["web"]}, 3),
        ({"node": ["h1"]}, 1),
        ({"service": ["web"], "node": ["h1", "h2"]}, 2),
        ({"_up-to-date": {"true": True}}, 3),
        ({"desired-state": ["shutdown"]}, 0),
        ({"desired-state": ["running", "shutdown"]}, 3),
        ({"name": ["web.2"]}, 1),
        ({"service": ["gone"]}, 0),
    ],
)
async def test_task_filters(http: Http, cluster: FakeBackend, filters, count: int) -> None:
    await create(http)
    cluster.run_tasks("web", 3)
    assert len(await http.get("/tasks", filters=json.dumps(filters))) == count


async def test_a_changed_task_is_shown_changed(http: Http, cluster: FakeBackend) -> None:
    await create(http)
    cluster.run_tasks("web", 1)
    (before,) = await http.get("/tasks")
    cluster.run_tasks("web", 1)
    (after,) = await http.get("/tasks")
    assert after["Version"]["Index"] > before["Version"]["Index"]


# --- nodes, networks, images, containers ----------------------------------------------------------------


async def test_nodes(http: Http, cluster: FakeBackend) -> None:
    nodes = await http.get("/nodes")
    assert [node["Description"]["Hostname"] for node in nodes] == ["h1", "h2", "h3"]
    assert nodes[0]["ManagerStatus"] == {
        "Leader": True,
        "Reachability": "reachable",
        "Addr": "10.7.0.1:2377",
    }
    assert "ManagerStatus" not in nodes[1]
    assert nodes[1]["Description"]["Resources"] == {"NanoCPUs": 2_000_000_000, "MemoryBytes": 4 << 30}
    assert "DataPathAddress" not in nodes[1]["Description"]
    assert len(await http.get("/nodes", filters='{"role":["worker"]}')) == 2
    spec = {"Labels": {"zone": "a"}, "Role": "worker", "Availability": "drain"}
    query = {"version": str(nodes[1]["Version"]["Index"])}
    status, found, _ = await http.ask("POST", "/nodes/h2/update", spec, params=query)
    assert (status, found) == (200, None)
    assert (await http.get("/nodes/h2"))["Spec"] == spec
    assert await http.refused("GET", "/nodes/self") == (404, "node self not found")
    assert (await http.ask("DELETE", "/nodes/h2", params={"force": "1"}))[0] == 200


async def test_networks(http: Http, cluster: FakeBackend) -> None:
    (found,) = await http.get("/networks", filters='{"scope":["swarm"]}')
    assert found["IPAM"]["Config"] == [{"Subnet": "10.0.0.0/20", "Gateway": "10.0.0.1"}]
    assert found["Containers"] is None
    assert (await http.get("/networks/ingress", verbose="true"))["Ingress"] is True
    assert await http.refused("GET", "/networks/nope") == (404, "network nope not found")


async def test_images_with_slashes_and_ports(http: Http, backend: FakeBackend) -> None:
    name = "127.0.0.1:5000/team/web:1"
    assert [image["RepoTags"] for image in await http.get("/images/json")] == [[name]]
    assert (await http.get(f"/v1.50/images/{name}/json"))["Config"]["Cmd"] == ["httpd"]
    found = await http.get(f"/v1.50/distribution/{name}/json")
    assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert (await http.refused("GET", "/distribution/absent/json"))[0] == 404
    status, removed, _ = await http.ask("DELETE", f"/images/{name}")
    assert (status, list(removed[0]), list(removed[1])) == (200, ["Untagged"], ["Deleted"])
    assert await http.refused("GET", f"/images/{name}/json") == (404, f"No such image: {name}")


async def test_loading_streams_the_archive(http: Http, backend: FakeBackend) -> None:
    archive = os.urandom(6 << 20)

    async def chunks():
        for start in range(0, len(archive), 1 << 20):
            yield archive[start : start + (1 << 20)]

    async with http.session.post("http://swarm/images/load?quiet=1", data=chunks()) as response:
        assert await response.text() == '{"stream": "Loaded image: 127.0.0.1:5000/team/web:1\\n"}\r\n'
    assert backend.engine.images.loaded == archive


async def pull(http: Http, **query: str) -> list[dict]:
    auth = base64.urlsafe_b64encode(b'{"username":"u","password":"p"}').decode().rstrip("=")
    async with http.session.post(
        "http://swarm/images/create", params=query, headers={"X-Registry-Auth": auth}
    ) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json"
        return [json.loads(line) for line in (await response.text()).split("\r\n") if line]


async def test_pull(http: Http, backend: FakeBackend) -> None:
    lines = await pull(http, fromImage="docker.io/library/web", tag="1")
    assert lines[0] == {"status": "Pulling from team/web", "id": "1"}
    reference, auth = backend.engine.images.pulled[0]
    assert reference == "docker.io/library/web:1"
    assert auth is not None
    assert (auth.username, auth.password.reveal()) == ("u", "p")


async def test_a_pull_that_fails_at_once_is_a_normal_error(http: Http, backend: FakeBackend) -> None:
    error = NotFound("manifest", "x")
    error.args = ("manifest for x:1 not found: manifest unknown",)
    backend.engine.images.pull_error = error
    found = await http.refused("POST", "/images/create", params={"fromImage": "x", "tag": "1"})
    assert found == (404, "manifest for x:1 not found: manifest unknown")


async def test_a_pull_that_fails_later_says_so_in_the_stream(http: Http, backend: FakeBackend) -> None:
    backend.engine.images.late_error = SwarmError("disk full")
    lines = await pull(http, fromImage="x")
    assert lines[-1] == {"errorDetail": {"message": "disk full"}, "error": "disk full"}


async def test_containers(http: Http, backend: FakeBackend) -> None:
    (found,) = await http.get("/containers/json")
    assert found["Names"] == ["/web.1." + "c" * 25]
    inspected = await http.get("/containers/ccc/json")
    assert inspected["State"]["Pid"] == 42
    assert await http.refused("GET", "/containers/nope/json") == (404, "No such container: nope")
    assert await http.get("/containers/json", filters='{"name":["zzz"]}') == []


async def test_what_is_not_there_yet(http: Http, cluster: FakeBackend) -> None:
    assert await http.get("/volumes") == {"Volumes": [], "Warnings": None}
    assert await http.get("/plugins") == []
    assert await http.refused("GET", "/volumes/v") == (404, "get v: no such volume")


# --- logs -----------------------------------------------------------------------------------------------


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return found


async def test_one_frame_is_one_line(http: Http, cluster: FakeBackend) -> None:
    await create(http)
    cluster.logs.messages = [a_line("one"), a_line("two", LogStream.STDERR)]
    query = {"stdout": "1", "stderr": "1", "details": "1", "timestamps": "1", "tail": "10", "since": "5.5"}
    async with http.session.get("http://swarm/services/web/logs", params=query) as response:
        assert response.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        found = frames(await response.read())
    details = (
        f"com.docker.swarm.node.id=node1{'0' * 20},com.docker.swarm.service.id={'s' * 25},"
        f"com.docker.swarm.task.id={'t' * 25}"
    )
    stamp = "2026-01-01T00:00:00.000000000Z"
    assert found == [(1, f"{stamp} {details} one\n".encode()), (2, f"{stamp} {details} two\n".encode())]
    options = cluster.logs.asked[0][1]
    assert options.tail == 10
    assert options.since is not None
    assert options.since.timestamp() == 5.5


async def test_headers_come_before_the_first_line_and_others_are_served(
    http: Http, cluster: FakeBackend
) -> None:
    await create(http)
    query = {"stdout": "1", "follow": "1"}
    async with http.session.get("http://swarm/services/web/logs", params=query) as response:
        assert response.status == 200
        assert await http.get("/nodes")
        cluster.logs.more.put_nowait(a_line("late"))
        assert await response.content.readexactly(13) == b"\x01\0\0\0\0\0\0\x05late\n"
        cluster.logs.more.put_nowait(Unavailable("the manager is stopping"))
        assert frames(await response.read()) == [(3, b"the manager is stopping")]


async def test_a_client_that_goes_ends_the_subscription(http: Http, cluster: FakeBackend) -> None:
    await create(http)
    query = {"stdout": "1", "follow": "1"}
    response = await http.session.get("http://swarm/services/web/logs", params=query)
    assert not cluster.logs.closed.is_set()
    response.close()
    async with asyncio.timeout(5):
        await cluster.logs.closed.wait()


async def test_a_stream_that_breaks_is_cut_off(http: Http, cluster: FakeBackend) -> None:
    await create(http)
    query = {"stdout": "1", "follow": "1"}
    async with http.session.get("http://swarm/services/web/logs", params=query) as response:
        cluster.logs.more.put_nowait(RuntimeError("internal detail"))
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_logs_need_a_stream(http: Http, cluster: FakeBackend) -> None:
    await create(http)
    cluster.run_tasks("web", 1)
    (task,) = await http.get("/tasks")
    for path in ("/services/web/logs", f"/tasks/{task['ID']}/logs", "/containers/ccc/logs"):
        found = await http.refused("GET", path)
        assert found == (400, "Bad parameters: you must choose at least one stream")


# --- the socket -----------------------------------------------------------------------------------------


async def test_the_socket_has_its_mode_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "swarm.sock"
    path.parent.mkdir()
    path.write_text("stale")
    async with serving(application(FakeBackend()), path):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert [entry.name for entry in path.parent.iterdir()] == ["swarm.sock"]
    assert not path.exists()
