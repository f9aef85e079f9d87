"""docker-py against the API: the same things as through the docker program, and what only a library reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, NotFound
from docker.types import EndpointSpec, Mount, Resources, RestartPolicy, ServiceMode

from swarm.model.objects import Service
from tests.fakes.api_http import serve
from tests.fakes.fake_backend import FakeBackend, a_line

InThread = Callable[[Callable[[docker.DockerClient], object]], Awaitable[object]]


@pytest.fixture
async def client(backend: FakeBackend, tmp_path: Path) -> AsyncIterator[InThread]:
    """Runs a function of a docker-py client in a thread, since the client blocks."""
    path = tmp_path / "swarm.sock"

    def call(function):
        found = docker.DockerClient(base_url=f"unix://{path}", timeout=10)
        try:
            return function(found)
        finally:
            found.close()

    async with serve(backend, path):
        yield lambda function: asyncio.to_thread(call, function)


async def test_version_ping_info(client: InThread, cluster: FakeBackend) -> None:
    def check(found: docker.DockerClient) -> None:
        assert found.ping()
        assert found.version()["ApiVersion"] == "1.50"
        assert found.info()["Swarm"]["ControlAvailable"]

    await client(check)


async def test_init_inspect_leave(client: InThread, backend: FakeBackend) -> None:
    def check(found: docker.DockerClient) -> None:
        assert found.swarm.init(advertise_addr="10.7.0.1") == backend.me.id
        assert found.swarm.attrs["DefaultAddrPool"] == ["10.0.0.0/8"]
        assert found.swarm.attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 5
        assert found.swarm.update(rotate_worker_token=True)
        assert found.swarm.leave(force=True)
        assert found.swarm.leave(force=True)
        with pytest.raises(APIError, match="not part of a swarm"):
            found.swarm.leave()

    await client(check)


async def test_services(client: InThread, cluster: FakeBackend) -> None:
    def check(found: docker.DockerClient) -> None:
        policy = RestartPolicy("any", delay=5_000_000_000)
        service = found.services.create(
            "web:1",
            command=["httpd", "-f"],
            name="web",
            labels={"tier": "front"},
            env=["A=1"],
            mounts=[Mount("/srv", "pages")],
            resources=Resources(mem_limit=64 << 20, cpu_limit=500_000_000),
            restart_policy=policy,
            mode=ServiceMode("replicated", replicas=2),
            endpoint_spec=EndpointSpec(ports={8080: 80}),
        )
        spec = service.attrs["Spec"]
        assert spec["TaskTemplate"]["RestartPolicy"] == policy
        assert spec["EndpointSpec"]["Ports"][0]["PublishedPort"] == 8080
        assert "RollbackConfig" not in spec
        assert service.scale(4)
        service.reload()
        assert service.attrs["Spec"]["Mode"]["Replicated"]["Replicas"] == 4
        assert "ServiceStatus" not in service.attrs
        (listed,) = found.services.list(filters={"label": ["tier=front"]}, status=True)
        assert listed.attrs["ServiceStatus"]["DesiredTasks"] == 4
        with pytest.raises(APIError, match="already exists") as taken:
            found.services.create("web:1", name="web")
        assert taken.value.status_code == 409
        with pytest.raises(APIError, match="update out of sequence"):
            found.api.update_service(service.id, 1, name="web", fetch_current_spec=True)
        assert service.remove()
        with pytest.raises(NotFound, match="service web not found"):
            found.services.get("web")

    await client(check)


async def test_tasks_nodes_networks(client: InThread, cluster: FakeBackend) -> None:
    def create(found: docker.DockerClient) -> str:
        return found.services.create("web:1", name="web").id

    await client(create)
    cluster.run_tasks("web", 2)

    def check(found: docker.DockerClient) -> None:
        service = found.services.get("web")
        assert len(service.tasks({"desired-state": "running"})) == 2
        assert [node.attrs["Description"]["Hostname"] for node in found.nodes.list()] == ["h1", "h2", "h3"]
        (node,) = found.nodes.list(filters={"name": "h2"})
        assert node.update({"Availability": "drain", "Role": "worker", "Labels": {"a": "b"}})
        assert found.nodes.get("h2").attrs["Spec"]["Availability"] == "drain"
        assert [n.name for n in found.networks.list(filters={"scope": "swarm"})] == ["ingress"]
        assert {n.name for n in found.networks.list()} == {"bridge", "host", "none", "ingress"}

    await client(check)


async def test_logs_and_images(client: InThread, cluster: FakeBackend) -> None:
    await client(lambda found: found.services.create("web:1", name="web"))
    assert cluster.store.view.named(Service, "web")
    cluster.logs.messages = [a_line("one"), a_line("two")]

    def check(found: docker.DockerClient) -> None:
        assert b"".join(found.services.get("web").logs(stdout=True)) == b"one\ntwo\n"
        assert found.images.list()[0].tags == ["127.0.0.1:5000/team/web:1"]
        assert found.images.get("127.0.0.1:5000/team/web:1").attrs["Os"] == "linux"
        assert found.containers.list()[0].status == "running"
        assert found.volumes.list() == []

    await client(check)
