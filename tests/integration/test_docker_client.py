"""The unmodified `docker` program, and docker-py, do the main job on two real hosts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import docker
import docker.types
import pytest

from swarm.lab.host import environment
from tests.integration.cluster import Cluster, json_lines

pytestmark = pytest.mark.root
needs_docker = [
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the docker program is not installed"),
]


@pytest.fixture(scope="module")
def two(lab):
    """Two hosts that are in no cluster and have no image."""
    return Cluster(lab(hosts=2))


@pytest.fixture(scope="module")
def python_client(two):
    client = docker.DockerClient(base_url=f"unix://{two.lab.socket_path('h1')}", timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="module")
def joined(two, web_archive, python_client):
    """The cluster; founded by docker-py if no test before has founded it by `docker`."""
    if python_client.info()["Swarm"]["LocalNodeState"] == "inactive":
        two.load(web_archive)
        python_client.swarm.init(advertise_addr=two.lab.address("h1"))
        token = python_client.swarm.attrs["JoinTokens"]["Worker"]
        with_h2 = docker.DockerClient(base_url=f"unix://{two.lab.socket_path('h2')}", timeout=30)
        with_h2.swarm.join(remote_addrs=[f"{two.lab.address('h1')}:2377"], join_token=token)
        with_h2.close()
    two.wait_until(lambda: two.node_states() == {"h1": "ready", "h2": "ready"}, "both are ready")
    return two


def settings(two):
    """Life of certificates [s], limit of the history, period of heartbeats [s], autolock."""
    spec = two.get("/swarm")["Spec"]
    return (
        spec["CAConfig"]["NodeCertExpiry"] // 10**9,
        spec["Orchestration"]["TaskHistoryRetentionLimit"],
        spec["Dispatcher"]["HeartbeatPeriod"] // 10**9,
        spec["EncryptionConfig"]["AutoLockManagers"],
    )


@pytest.mark.usefixtures("two")
class TestDocker:
    """In this order: each test goes on where the one before ended."""

    pytestmark = needs_docker

    def test_a_swarm_is_founded_and_joined(self, two, web_archive):
        for name in two.hosts:
            assert "Loaded image: web:latest" in two.docker(name, "image", "load", "-i", str(web_archive))
        said = two.docker("h1", "swarm", "init", "--advertise-addr", two.lab.address("h1"))
        assert "is now a manager" in said
        (command,) = re.findall(r"docker (swarm join --token \S+ \S+:2377)", said)
        assert "This node joined a swarm as a worker." in two.docker("h2", *command.split())
        rows = json_lines(two.docker("h1", "node", "ls", "--format", "json"))
        assert [(r["Hostname"], r["Status"], r["ManagerStatus"]) for r in rows] == [
            ("h1", "Ready", "Leader"),
            ("h2", "Ready", ""),
        ]

    def test_info_and_version(self, two):
        assert re.search(r"Server:.*\n Engine:\n +Version:", two.docker("h1", "version"))
        said = two.docker("h1", "info")
        assert " Swarm: active\n" in said
        assert "  Managers: 1\n  Nodes: 2\n" in said

    def test_the_swarm_s_settings_and_keys(self, two):
        wanted = ("--cert-expiry", "48h", "--task-history-limit", "2", "--dispatcher-heartbeat", "2s")
        assert two.docker("h1", "swarm", "update", *wanted) == "Swarm updated.\n"
        assert settings(two) == (48 * 3600, 2, 2, False)
        said = two.docker("h1", "swarm", "update", "--autolock=true")
        key = two.docker("h1", "swarm", "unlock-key", "-q").strip()
        assert f"\n    {key}\n" in said
        new = two.docker("h1", "swarm", "unlock-key", "--rotate", "-q").strip()
        assert key != new == two.docker("h1", "swarm", "unlock-key", "-q").strip()
        refused = two.run("h1", "docker", "swarm", "update", "--cert-expiry", "59m")
        assert "minimum certificate expiry time is 1h0m0s" in refused.stderr
        refused = two.run("h1", "docker", "swarm", "update", "--snapshot-interval", "5")
        assert "Raft.SnapshotInterval is not supported by this version" in refused.stderr
        back = ("--cert-expiry", "2160h", "--task-history-limit", "5", "--dispatcher-heartbeat", "1s")
        two.docker("h1", "swarm", "update", "--autolock=false", *back)
        assert settings(two) == (90 * 86400, 5, 1, False)
        token = two.docker("h1", "swarm", "join-token", "-q", "manager")
        assert two.docker("h1", "swarm", "join-token", "-q", "--rotate", "manager") != token
        root = two.docker("h1", "swarm", "ca")
        two.docker("h1", "swarm", "ca", "--rotate", "-q")
        assert two.docker("h1", "swarm", "ca") != root

    def test_a_service_is_created_with_progress(self, two):
        said = two.docker(
            "h1", "service", "create", "--name", "web", "--replicas", "5", "-p", "8080:80", "web"
        )
        assert "overall progress: 5 out of 5 tasks" in said
        assert re.search(r"verify: Service \w{25} converged", said)
        tasks = two.wait_running("web", 5)
        names = {t["ID"][:12] for t in tasks}
        assert {two.url_get(name, 8080) for name in two.hosts for _ in range(5)} == names

    def test_listings_inspect_and_logs(self, two):
        (row,) = json_lines(two.docker("h1", "service", "ls", "--format", "json"))
        assert (row["Name"], row["Mode"], row["Replicas"]) == ("web", "replicated", "5/5")
        assert row["Ports"] == "*:8080->80/tcp"
        lines = two.docker("h1", "service", "ps", "web").splitlines()
        assert sorted(line.split()[1] for line in lines[1:]) == [f"web.{n}" for n in range(1, 6)]
        (found,) = json.loads(two.docker("h1", "service", "inspect", "web"))
        assert found["Spec"]["Mode"] == {"Replicated": {"Replicas": 5}}
        assert "PublishedPort = 8080" in two.docker("h1", "service", "inspect", "--pretty", "web")
        assert two.docker("h1", "service", "logs", "web").count("listens on 80") == 5
        assert two.docker("h1", "service", "logs", "--raw", "--tail", "1", "-t", "web").count("Z web: ") == 5

    def test_scale_and_remove(self, two):
        assert "web scaled to 3" in two.docker("h1", "service", "scale", "web=3")
        two.wait_running("web", 3)
        two.docker("h1", "service", "rm", "web")
        assert two.docker("h1", "service", "ls", "-q") == ""
        two.wait_clean()

    def test_a_followed_log(self, two):
        two.create(
            "talk",
            "--stop-grace-period",
            "1s",
            command=("sh", "-c", "while true; do echo word; sleep 0.05; done"),
        )
        two.wait_running("talk", 1)
        command = two.lab.entry("h1", ["docker", "service", "logs", "-f", "--raw", "talk"]).command()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
            try:
                assert [process.stdout.readline() for _ in range(3)] == ["word\n"] * 3
            finally:
                process.kill()
        two.docker("h1", "service", "rm", "talk")

    def test_errors_are_docker_s(self, two):
        done = two.run("h2", "docker", "service", "ls")
        assert done.returncode == 1
        assert "This node is not a swarm manager" in done.stderr
        missing = two.run("h1", "docker", "service", "inspect", "nothing")
        assert "no such service: nothing" in missing.stderr

    def test_containers_of_the_host(self, two):
        two.docker(
            "h1", "service", "create", "-d", "--name", "one", "--constraint", "node.role==worker", "web"
        )
        (task,) = two.wait_running("one", 1)
        names = two.docker("h2", "ps", "--format", "{{.Names}} {{.Image}}", "-f", "name=one").split()
        assert names == [f"one.1.{task['ID']}", "web:latest"]
        assert two.docker("h1", "ps", "-q", "-f", "name=one") == ""
        two.docker("h1", "service", "rm", "one")


def test_docker_py_changes_the_swarm_s_settings(joined, python_client):
    swarm = python_client.swarm
    swarm.reload()
    assert swarm.update(
        node_cert_expiry=48 * 3600 * 10**9,
        task_history_retention_limit=3,
        dispatcher_heartbeat_period=2 * 10**9,
        autolock_managers=True,
    )
    assert settings(joined) == (48 * 3600, 3, 2, True)
    key = swarm.get_unlock_key()["UnlockKey"]
    swarm.reload()
    assert swarm.update(rotate_worker_token=True, rotate_manager_token=True, rotate_manager_unlock_key=True)
    assert settings(joined)[3], "what is not named stays"
    assert swarm.get_unlock_key()["UnlockKey"] not in ("", key)
    swarm.reload()
    assert swarm.update(autolock_managers=False, dispatcher_heartbeat_period=10**9)
    assert settings(joined)[2:] == (1, False)


def test_docker_py_does_the_main_job(joined, python_client):
    assert {n.attrs["Description"]["Hostname"] for n in python_client.nodes.list()} == {"h1", "h2"}
    created = python_client.services.create(
        "web",
        name="py",
        mode=docker.types.ServiceMode("replicated", replicas=3),
        endpoint_spec=docker.types.EndpointSpec(ports={8085: (80, "tcp")}),
        env=["A=b"],
        labels={"by": "python"},
    )
    tasks = joined.wait_running("py", 3)
    assert {t["ID"] for t in created.tasks()} == {t["ID"] for t in tasks}
    names = {t["ID"][:12] for t in tasks}
    joined.wait_until(lambda: {joined.url_get("h2", 8085) for _ in range(6)} == names, "all answer on h2")
    (listed,) = python_client.services.list(filters={"label": "by=python"})
    assert listed.name == "py"

    def said() -> bytes:
        return b"".join(created.logs(stdout=True, stderr=True))

    joined.wait_until(lambda: said().count(b"listens on 80") == 3, "all have said that they listen")
    assert created.scale(4)
    joined.wait_running("py", 4)
    created.remove()
    with pytest.raises(docker.errors.NotFound):
        python_client.services.get(created.id)
    joined.wait_clean()


def test_leaving_by_docker_py(joined, python_client):
    with pytest.raises(docker.errors.APIError, match="force"):
        python_client.swarm.leave()
    assert python_client.swarm.leave(force=True)
    joined.wait_clean("h1", of_member=True)
