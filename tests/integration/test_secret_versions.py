"""Versions, templates, variables, drivers on real hosts: what containers get, and when they are replaced."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, logs

pytestmark = pytest.mark.root

QUICK = ("--stop-grace-period", "1s", "--update-monitor", "1s", "--no-resolve-image")


def put(cluster: Cluster, command: str, data: str, *options: str) -> str:
    """`swarm COMMAND -` with the data on its standard input."""
    done = cluster.lab.exec("h1", ["swarm", *command.split(), *options, "-"], feed=data, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def start(cluster: Cluster, name: str, script: str, *options: str) -> None:
    cluster.create(name, *QUICK, *options, command=("sh", "-c", f"{script}; echo; exec sleep 1000"))
    cluster.wait_running(name, 1)


def wait_said(cluster: Cluster, name: str, text: str) -> None:
    cluster.wait_until(lambda: text in logs(cluster, name), f"{name} says {text!r}")


def test_a_new_version_rolls_what_follows_and_leaves_what_is_held(cluster):
    put(cluster, "secret create db", "one")
    start(cluster, "follows", "cat /run/secrets/db", "--secret", "db")
    start(cluster, "held", "cat /run/secrets/db", "--secret", "source=db,version=1")
    wait_said(cluster, "follows", "one")
    held = cluster.running("held")[0]["ID"]
    assert put(cluster, "secret update db", "two") == "2"
    assert put(cluster, "secret update db", "two") == "2", "the same data are no new version"
    wait_said(cluster, "follows", "two")
    cluster.wait_running("follows", 1)
    cluster.wait_until(lambda: update_state(cluster, "follows") == "completed", "the update is over")
    assert cluster.running("held")[0]["ID"] == held
    history = cluster.swarm(
        "h1", "secret", "history", "db", "--format", "{{.Version}}{{.Current}} {{.Tasks}}"
    )
    newest, oldest = history.splitlines()
    assert newest.startswith("2* follows.1.")
    assert oldest.startswith("1 held.1.")
    task = cluster.tasks("held")
    reference = task[0]["Spec"]["ContainerSpec"]["Secrets"][0]
    assert (reference["SecretName"], reference["Version"]) == ("db", 1)


def update_state(cluster: Cluster, name: str) -> str:
    status = cluster.get(f"/services/{name}").get("UpdateStatus") or {}
    found: str = status.get("State", "")
    return found


def test_back_and_pruned(cluster):
    assert cluster.swarm("h1", "secret", "rollback", "db") == "1\n"
    cluster.wait_until(lambda: logs(cluster, "follows").count("one") == 2, "it has the first one again")
    assert "secret db has no version before 1" in cluster.refused("h1", "secret", "rollback", "db")
    assert "9 of secret db not found" in cluster.refused("h1", "secret", "rollback", "--to", "9", "db")
    cluster.wait_until(lambda: update_state(cluster, "follows") == "completed", "the update is over")
    put(cluster, "secret update db", "three")
    wait_said(cluster, "follows", "three")
    cluster.wait_until(lambda: update_state(cluster, "follows") == "completed", "the update is over")
    cluster.wait_until(
        lambda: cluster.swarm("h1", "secret", "prune", "-f", "db") == "db 2\n", "what nothing uses goes"
    )
    versions = [v["Version"] for v in cluster.get("/secrets/db/versions")]
    assert versions == [3, 1]
    revision = cluster.get("/secrets/db")["Version"]
    assert "larger than 0" in cluster.run("h1", "sh", "-c", "printf '' | swarm secret update db -").stderr
    assert cluster.get("/secrets/db")["Version"] == revision
    assert cluster.get("/secrets/db")["Spec"] == {"Name": "db", "Labels": {}}
    for name in ("follows", "held"):
        cluster.swarm("h1", "service", "rm", name)
    cluster.swarm("h1", "secret", "rm", "db")
    assert cluster.get("/secrets") == []


def test_templates_and_variables(cluster):
    put(cluster, "secret create token", "t0k3n")
    text = '{{ secret "token" }} {{ env "ZONE" }} {{ .Service.Name }}.{{ .Task.Slot }}'
    put(cluster, "config create conf", text, "--template-driver", "golang")
    start(
        cluster, "shows", 'cat /conf; echo "; $TOKEN"', "--env", "ZONE=north",
        "--secret", "token", "--secret", "source=token,env=TOKEN", "--config", "conf",
    )  # fmt: skip
    wait_said(cluster, "shows", "t0k3n north shows.1; t0k3n")
    assert "t0k3n" not in cluster.swarm("h1", "service", "inspect", "shows")
    assert "t0k3n" not in json.dumps(cluster.tasks("shows"))
    host = cluster.hosts_of(cluster.running("shows"))[0]
    assert "t0k3n" not in json.dumps(cluster.get("/containers/json", host))
    put(cluster, "config update conf", "plain")
    wait_said(cluster, "shows", "plain; t0k3n")
    cluster.swarm("h1", "service", "rm", "shows")
    for kind, name in (("secret", "token"), ("config", "conf")):
        cluster.swarm("h1", kind, "rm", name)


def test_templates_that_cannot_be(cluster):
    before = cluster.get("/configs")
    bad = "printf '{{ secret }' | swarm config create --template-driver golang bad -"
    assert "the template is not valid" in cluster.run("h1", "sh", "-c", bad).stderr
    other = "printf x | swarm config create --template-driver jinja bad -"
    assert (
        "template driver 'jinja' is not supported: it must be 'golang'"
        in cluster.run("h1", "sh", "-c", other).stderr
    )
    assert cluster.get("/configs") == before
    put(cluster, "config create lost", '{{ secret "nobody" }}', "--template-driver", "golang")
    cluster.create("lost", *QUICK, "--config", "lost", "--restart-condition", "none")
    cluster.wait_until(
        lambda: "secret target nobody not found" in json.dumps(cluster.tasks("lost")), "its task says so"
    )
    cluster.swarm("h1", "service", "rm", "lost")
    cluster.swarm("h1", "config", "rm", "lost")


@pytest.fixture
def driver(cluster):
    """The example driver, on every host but the last one."""
    program = Path(__file__).with_name("secret_driver_program.py")
    hosts, pid = cluster.hosts[:-1], "/run/example-driver.pid"
    for host in hosts:
        script = f"{sys.executable} {program} example > {pid} 2>/dev/null </dev/null &"
        cluster.output(host, "sh", "-c", script)
        cluster.wait_until(lambda host=host: cluster.run(host, "cat", pid).stdout, "the driver listens")
    yield
    for host in hosts:
        cluster.output(
            host, "sh", "-c", f"kill $(cat {pid}); rm {pid} /run/swarm/secret-drivers/example.sock"
        )


def test_a_driver_gives_each_task_a_value_of_its_own(cluster, driver):
    cluster.docker("h1", "secret", "create", "--driver", "example", "made")
    cluster.swarm("h1", "secret", "create", "--driver", "example", "--label", "deny", "denied")
    here = ("--constraint", "node.hostname!=h3")
    cluster.create(
        "each", *QUICK, *here, "--replicas", "2", "--secret", "made",
        command=("sh", "-c", "cat /run/secrets/made; echo; exec sleep 1000"),
    )  # fmt: skip
    cluster.wait_running("each", 2)
    cluster.wait_until(lambda: len(logs(cluster, "each").split()) == 2, "both say theirs")
    wanted = {hashlib.sha256(f"made {t['ID']}".encode()).hexdigest() for t in cluster.running("each")}
    assert set(logs(cluster, "each").split()) == wanted
    once = (*QUICK, "--restart-condition", "none")
    cluster.create("refused", *once, *here, "--secret", "denied")
    cluster.create("absent", *once, "--constraint", "node.hostname==h3", "--secret", "made")
    for name, complaint in (
        ("refused", "secret driver example refused secret denied: denied is not for refused"),
        ("absent", "secret driver example cannot be asked on this node (No such file or directory)"),
    ):
        cluster.wait_until(lambda n=name, c=complaint: c in json.dumps(cluster.tasks(n)), complaint)
    assert "it has no versions of its own" in cluster.run(
        "h1", "sh", "-c", "echo x | swarm secret update made -"
    ).stderr  # fmt: skip
    for name in ("each", "refused", "absent"):
        cluster.swarm("h1", "service", "rm", name)
    cluster.swarm("h1", "secret", "rm", "made", "denied")
