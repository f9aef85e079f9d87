"""The example stacks on two lab hosts, by our command and by an unmodified `docker`, up and down again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from swarm.lab import names
from swarm.lab.lab import SWARMD
from tests.chaos.stack_turns import take_turns
from tests.integration.cluster import Cluster, Probe, http_get, json_lines, short
from tests.integration.stack_images import registry

pytestmark = pytest.mark.root
EXAMPLES = Path(__file__).parents[2] / "examples"
DEPLOY_S = 60.0

QUICK = """
services:
  web:
    image: ${REGISTRY}/web:1
    deploy:
      replicas: 2
      update_config: {monitor: 1s}
"""
CONTENT = """
configs:
  motd:
    environment: MOTD
"""


class Stacks:
    """Stacks of a cluster whose hosts can reach a registry."""

    def __init__(self, cluster: Cluster, registry: str) -> None:
        self.cluster = cluster
        self.environment = ("env", f"REGISTRY={registry}")

    def run(self, *arguments: str, program: str = "swarm", **variables: str):
        more = (f"{key}={value}" for key, value in variables.items())
        command = (*self.environment, *more, program, "stack", *arguments)
        return self.cluster.run("h1", *command, timeout=DEPLOY_S)

    def output(self, *arguments: str, program: str = "swarm", **variables: str) -> str:
        done = self.run(*arguments, program=program, **variables)
        assert done.returncode == 0, f"{arguments}: {done.stderr or done.stdout}"
        return done.stdout

    def deploy(self, name: str, file: Path | str, *options: str, **variables: str) -> str:
        path = EXAMPLES / file / "compose.yml" if isinstance(file, str) else file
        return self.output(
            "deploy", "--wait", "--timeout", "50s", *options, "-c", str(path), name, **variables
        )

    @contextmanager
    def stack(self, name: str, file: Path | str, **variables: str) -> Iterator[str]:
        """Deployed, and removed whatever happens; the value is what the command said."""
        try:
            yield self.deploy(name, file, **variables)
        except BaseException:
            self.run("rm", name)
            raise
        self.remove(name)

    def remove(self, name: str) -> None:
        """Afterwards nothing of the stack is left, on no host."""
        self.output("rm", name)
        mine = {"label": [f"com.docker.stack.namespace={name}"]}
        for kind in ("services", "networks", "secrets", "configs"):
            assert self.cluster.get(f"/{kind}", filters=mine) == []
        self.cluster.wait_clean()

    def ids(self, name: str) -> set[str]:
        return {task["ID"] for task in self.cluster.running(name)}

    def get(self, port: int, path: str) -> str:
        return http_get(self.cluster.lab.address("h2"), port, path, 10)


@pytest.fixture(scope="module")
def stacks(lab, tmp_path_factory):
    made = Cluster(lab(hosts=2, daemon=(*SWARMD, "--insecure-registry", str(names.POOL))))
    made.found()
    machine = str(IPv4Address(made.lab.address("h1")) - 1)
    with registry(tmp_path_factory.mktemp("stacks") / "registry", machine) as address:
        yield Stacks(made, address)


def test_a_stack_grows_without_losing_a_request(stacks):
    with stacks.stack("web", "web") as said:
        assert said.startswith("Creating network web_webnet\nCreating service web_web\n")
        cluster = stacks.cluster
        tasks = cluster.wait_running("web_web", 5)
        assert {cluster.url_get("h2", 8080) for _ in range(50)} == short(tasks)
        limits = tasks[0]["Spec"]["Resources"]["Limits"]
        assert limits == {"NanoCPUs": 100_000_000, "MemoryBytes": 50 << 20}
        (row,) = json_lines(stacks.output("services", "--format", "json", "web"))
        assert (row["Name"], row["Replicas"], row["Ports"]) == ("web_web", "5/5", "*:8080->80/tcp")
        with Probe(cluster.lab.address("h1"), 8080) as probe:
            stacks.deploy("web", "web-visualizer")
        assert probe.failures == []
        assert len(probe.answers) > 50
        assert stacks.ids("web_web") == {task["ID"] for task in tasks}
        assert cluster.hosts_of(cluster.running("web_visualizer")) == ["h1"]
        plan = stacks.output(
            "deploy", "--dry-run", "--prune", "-c", str(EXAMPLES / "web" / "compose.yml"), "web"
        )
        assert plan.splitlines() == [
            "removed    service web_visualizer",
            "unchanged  network web_webnet",
            "unchanged  service web_web",
        ]
        assert stacks.output("ls").split() == ["NAME", "SERVICES", "web", "2"]


def test_an_application_starts_after_its_database(stacks):
    with stacks.stack("notes", "notes", DB_PASSWORD="s3cret"):
        cluster = stacks.cluster
        (db,), (app,) = cluster.wait_running("notes_db", 1), cluster.wait_running("notes_app", 1)
        assert db["Status"]["Timestamp"] < app["Status"]["Timestamp"]
        assert stacks.get(8000, "/cgi-bin/app?add=first") == ""
        assert stacks.get(8000, "/cgi-bin/app?all") == "first"
        assert "DB_PASSWORD=s3cret" in app["Spec"]["ContainerSpec"]["Env"]
        mounts = db["Spec"]["ContainerSpec"]["Mounts"]
        assert [(m["Type"], m["Source"], m["Target"]) for m in mounts] == [("volume", "notes_rows", "/data")]


def test_votes_are_counted_by_six_services(stacks):
    with stacks.stack("voting", "voting"):
        rows = json_lines(stacks.output("services", "--format", "json", "voting"))
        assert {row["Name"]: row["Replicas"] for row in rows} == {
            f"voting_{name}": "2/2" if name == "vote" else "1/1"
            for name in ("db", "redis", "result", "visualizer", "vote", "worker")
        }
        redis = stacks.cluster.get("/services/voting_redis")
        (port,) = redis["Endpoint"]["Ports"]
        assert 30000 <= port["PublishedPort"] <= 32767
        for animal in ("cats", "dogs", "cats"):
            stacks.get(5000, f"/cgi-bin/vote?{animal}")
        stacks.cluster.wait_until(
            lambda: stacks.get(5001, "/cgi-bin/result") == "3", "three votes are counted"
        )
        worker = stacks.cluster.get("/services/voting_worker")["Spec"]
        assert worker["Labels"]["APP"] == "VOTING"
        assert worker["TaskTemplate"]["RestartPolicy"]["Window"] == 120_000_000_000


def test_a_monitoring_stack_on_every_node(stacks):
    with stacks.stack("monitor", "monitoring"):
        cluster = stacks.cluster
        exporters = cluster.wait_running("monitor_node-exporter", 2)
        said = stacks.cluster.swarm("h1", "service", "logs", "--raw", "monitor_node-exporter")
        assert {f"node {task['NodeID']}" in said for task in exporters} == {True}
        assert "processes" in said
        for port in (9090, 9093, 3000):
            assert stacks.get(port, "/") != ""
        grafana = stacks.get(3000, "/cgi-bin/env")
        assert "GF_SERVER_ROOT_URL=http://localhost:3000/\n" in grafana
        (alerts,) = cluster.running("monitor_alertmanager")
        command = ("service", "exec", "monitor_alertmanager", "cat", "/etc/alertmanager/config.yml")
        assert cluster.swarm("h1", *command) == (EXAMPLES / "monitoring" / "alertmanager.yml").read_text()
        assert alerts["NodeID"]


def test_what_fails_is_put_back(stacks, tmp_path):
    file = tmp_path / "compose.yml"
    file.write_text(QUICK)
    with stacks.stack("quick", file):
        before = stacks.cluster.get("/services/quick_web")["Spec"]
        file.write_text(QUICK.replace("/web:1", '/web:1\n    command: ["/nope"]'))
        done = stacks.run("deploy", "--rollback-on-failure", "--timeout", "20s", "-c", str(file), "quick")
        assert done.returncode == 1
        assert "stack quick failed and is as it was before: " in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert stacks.cluster.get("/services/quick_web")["Spec"] == before
        stacks.cluster.wait_running("quick_web", 2)
        file.write_text(QUICK.replace("/web:1", "/gone:1"))
        done = stacks.run("deploy", "-c", str(file), "quick")
        assert "/gone:1 is neither on this manager nor in its registry" in done.stderr


def test_new_content_rolls_the_services_that_use_it(stacks, tmp_path):
    file = tmp_path / "compose.yml"
    text = QUICK.replace("    deploy:", "    configs: [motd]\n    deploy:") + CONTENT
    file.write_text(text)
    with stacks.stack("quick", file, MOTD="one"):
        before = stacks.ids("quick_web")
        plan = stacks.output("deploy", "--dry-run", "-c", str(file), "quick", MOTD="two")
        assert plan.splitlines()[1:] == [
            "changed    config quick_motd: content",
            "changed    service quick_web: config quick_motd",
        ]
        stacks.deploy("quick", file, MOTD="two")
        assert not before & stacks.ids("quick_web")
        assert stacks.cluster.swarm("h1", "service", "exec", "quick_web", "cat", "/motd") == "two"
        file.write_text(QUICK)
        stacks.deploy("quick", file, "--prune")
        assert stacks.cluster.get("/configs") == []


def test_removing_and_deploying_in_a_row(stacks, web_archive, tmp_path):
    stacks.cluster.load(web_archive)
    assert take_turns(stacks.cluster, tmp_path, 10) == []


@pytest.mark.docker_client
@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker program is not installed")
def test_docker_deploys_the_same(stacks):
    file = str(EXAMPLES / "web" / "compose.yml")
    stacks.output("deploy", "--detach=true", "-c", file, "web", program="docker")
    stacks.cluster.wait_running("web_web", 5)
    plan = stacks.output("deploy", "--dry-run", "-c", file, "web").splitlines()
    assert plan == ["unchanged  network web_webnet", "unchanged  service web_web"]
    ours = json.loads(stacks.output("services", "--format", "json", "web"))
    assert json.loads(stacks.output("services", "--format", "json", "web", program="docker")) == ours
    assert len(stacks.output("ps", "-q", "web", program="docker").split()) == 5
    for _ in range(3):
        stacks.output("rm", "web", program="docker")
        stacks.output("deploy", "--detach=true", "-c", file, "web", program="docker")
    # Without --detach=false: docker's client may then wait for ever (docker/cli pull request 7304).
    stacks.output("rm", "web", program="docker")
    stacks.cluster.wait_clean()
