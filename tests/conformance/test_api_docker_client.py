"""The unmodified `docker` program against the API, over a cluster that exists in memory only."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm.model.objects import Service
from tests.fakes.api_http import serve
from tests.fakes.fake_backend import FakeBackend, a_line

pytestmark = [
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the docker program is not installed"),
]


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


Docker = Callable[..., Awaitable[Ran]]


@pytest.fixture
async def docker(backend: FakeBackend, tmp_path: Path) -> AsyncIterator[Docker]:
    path = tmp_path / "swarm.sock"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DOCKER_HOST": f"unix://{path}",
        "DOCKER_CLI_HINTS": "false",
    }

    async def run(*arguments: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async with serve(backend, path):
        yield run


async def create(docker: Docker, *arguments: str) -> str:
    ran = await docker("service", "create", "--detach", "--quiet", *arguments)
    assert ran.status == 0, ran.err
    return ran.out.strip()


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


async def test_version_and_info(docker: Docker, cluster: FakeBackend) -> None:
    version = await docker("version")
    assert version.status == 0
    assert "API version:      1.50 (minimum version 1.24)" in version.out
    info = await docker("info")
    assert info.status == 0
    assert "Swarm: active" in info.out
    assert "Is Manager: true" in info.out
    assert "Nodes: 3" in info.out
    assert " Labels:\n  rack=r1\n" in info.out
    assert " Insecure Registries:\n  registry:5000\n  127.0.0.0/8\n" in info.out


async def test_init_prints_the_join_command(docker: Docker, backend: FakeBackend) -> None:
    ran = await docker("swarm", "init", "--advertise-addr", "10.7.0.1")
    assert ran.status == 0, ran.err
    assert ran.out.startswith(f"Swarm initialized: current node ({backend.me.id}) is now a manager.")
    token = f"SWMTKN-1-{'0' * 50}-{'w' * 25}"
    assert f"    docker swarm join --token {token} 10.7.0.1:2377" in ran.out
    again = await docker("swarm", "init")
    assert again.status == 1
    assert "already part of a swarm" in again.err


async def test_join_tokens(docker: Docker, cluster: FakeBackend) -> None:
    before = await docker("swarm", "join-token", "-q", "worker")
    after = await docker("swarm", "join-token", "-q", "--rotate", "worker")
    manager = await docker("swarm", "join-token", "-q", "manager")
    assert before.out.startswith("SWMTKN-1-")
    assert after.out != before.out
    assert manager.out.strip().endswith("m" * 25)


async def test_join_prints_the_role(docker: Docker, backend: FakeBackend) -> None:
    ran = await docker("swarm", "join", "--token", "SWMTKN-1-a-b", "10.7.0.1:2377")
    assert ran.out == "This node joined a swarm as a worker.\n"
    listed = await docker("node", "ls")
    assert listed.status == 1
    assert "Worker nodes can't be used to view or modify cluster state" in listed.err


async def test_node_commands(docker: Docker, cluster: FakeBackend) -> None:
    listed = rows((await docker("node", "ls")).out)
    assert listed[1] == [cluster.me.id, "*", "h1", "Ready", "Active", "Leader", "0.1.0"]
    assert (
        await docker("node", "update", "--availability", "drain", "--label-add", "a=b", "h2")
    ).out == "h2\n"
    drained = rows((await docker("node", "ls")).out)[2]
    assert drained[3] == "Drain"
    inspected = await docker("node", "inspect", "--pretty", "self")
    assert "Hostname:              \th1" in inspected.out
    refused = await docker("node", "rm", "h3")
    assert refused.status == 1
    assert "is not down and can't be removed" in refused.err
    assert (await docker("node", "rm", "-f", "h3")).status == 0


async def test_a_service_from_create_to_remove(docker: Docker, cluster: FakeBackend) -> None:
    service_id = await create(
        docker,
        *("--name", "web", "--replicas", "3", "-p", "8080:80", "-l", "tier=front", "-e", "A=1"),
        *("--limit-memory", "64m", "--constraint", "node.role==worker", "--restart-condition", "on-failure"),
        *("--mount", "type=volume,source=pages,target=/srv", "web:1", "httpd", "-f"),
    )
    cluster.run_tasks("web", 3)
    listed = rows((await docker("service", "ls")).out)
    assert listed[1] == [service_id[:12], "web", "replicated", "3/3", "web:1", "*:8080->80/tcp"]
    tasks = rows((await docker("service", "ps", "web")).out)[1:]
    assert {task[1] for task in tasks} == {"web.1", "web.2", "web.3"}
    assert {task[3] for task in tasks} == {"h1", "h2", "h3"}
    pretty = (await docker("service", "inspect", "--pretty", "web")).out
    assert "Replicas:\t3" in pretty
    assert "PublishedPort = 8080" in pretty
    assert (await docker("service", "scale", "-d", "web=5")).out == "web scaled to 5\n"
    assert rows((await docker("service", "ls")).out)[1][3] == "3/5"
    assert (await docker("service", "rm", "web")).out == "web\n"
    assert not cluster.store.view.list(Service)


async def test_create_waits_until_converged(docker: Docker, cluster: FakeBackend) -> None:
    """Attached, as people use it: the program polls until the tasks run, then watches them for a while."""

    async def run_when_created() -> None:
        await cluster.store.written.wait()
        cluster.run_tasks("web", 2)

    async with asyncio.TaskGroup() as group:
        group.create_task(run_when_created())
        ran = await docker("service", "create", "--name", "web", "--replicas", "2", "web:1")
    assert ran.status == 0, ran.err
    assert "converged" in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--name", "web", "x"), "name conflicts with an existing object: service web already exists"),
        (("-p", "8080:1", "x"), "port '8080' is already in use by service 'web'"),
        (("--limit-memory", "1k", "x"), "invalid memory value 1024: Must be at least 4MiB"),
        (("--constraint", "node.role=worker", "x"), "constraint expected one operator from ==, !="),
        (("--network", "nope", "x"), "network nope not found"),
    ],
)
async def test_refusals_are_one_line_and_change_nothing(
    docker: Docker, cluster: FakeBackend, arguments: tuple[str, ...], message: str
) -> None:
    await create(docker, "--name", "web", "-p", "8080:80", "web:1")
    ran = await docker("service", "create", "--detach", "--quiet", *arguments)
    assert ran.status == 1
    assert ran.err.startswith("Error response from daemon: ")
    assert message in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert len(cluster.store.view.list(Service)) == 1


async def test_logs_name_task_and_node(docker: Docker, cluster: FakeBackend) -> None:
    await create(docker, "--name", "web", "web:1")
    cluster.run_tasks("web", 1)
    (task,) = cluster.store.view.tasks_of_service(cluster.store.view.named(Service, "web")[0].id)
    line = a_line("hello")
    message = type(line)(
        task_id=task.id,
        node_id=task.node_id,
        service_id=task.service_id,
        stream=line.stream,
        timestamp=line.timestamp,
        data=line.data,
    )
    cluster.logs.messages = [message]
    ran = await docker("service", "logs", "--timestamps", "web")
    assert ran.status == 0, ran.err
    assert ran.out.split() == [
        "2026-01-01T00:00:00.000000000Z",
        f"web.1.{task.id[:12]}@h2",
        "|",
        "hello",
    ]


async def test_local_lists_and_inspect(docker: Docker, cluster: FakeBackend) -> None:
    assert rows((await docker("image", "ls")).out)[1][:2] == ["127.0.0.1:5000/team/web", "1"]
    assert rows((await docker("ps")).out)[1][0] == "c" * 12
    assert [row[1:] for row in rows((await docker("network", "ls")).out)[1:]] == [
        ["bridge", "bridge", "local"],
        ["host", "host", "local"],
        ["ingress", "overlay", "swarm"],
        ["none", "null", "local"],
    ]
    assert (await docker("volume", "ls")).status == 0
    unknown = await docker("inspect", "nope")
    assert unknown.status == 1
    assert "No such object: nope" in unknown.err
    assert (await docker("pull", "127.0.0.1:5000/team/web:1")).status == 0


async def test_leave(docker: Docker, cluster: FakeBackend) -> None:
    assert (await docker("swarm", "leave")).status == 1
    assert (await docker("swarm", "leave", "--force")).out == "Node left the swarm.\n"
