"""Secrets and configs on real hosts: made, mounted, replaced and gone, by `swarm` and by Docker's client."""

from __future__ import annotations

import json
import shutil
from functools import partial

import docker
import docker.types
import pytest

from swarm.base.clock import SystemClock
from tests.integration.cluster import logs, service, wait_ended

pytestmark = pytest.mark.root

OURS = ("swarm",)
THEIRS = pytest.param(
    ("docker",),
    marks=[
        pytest.mark.docker_client,
        pytest.mark.skipif(shutil.which("docker") is None, reason="the docker program is not installed"),
    ],
)
BOTH_DOORS = pytest.mark.parametrize("door", [OURS, THEIRS], ids=["swarm", "docker"])
QUICK_END = ("--stop-grace-period", "1s")
SHOW = 'stat -c "%u:%g %a" /run/secrets/password; cat /run/secrets/password; echo; exec sleep 1000'
GONE_WITHIN_S = 1.0


def create(cluster, kind, name, data, *options, door=OURS):
    command = f"printf %s '{data}' | {' '.join(door)} {kind} create {' '.join(options)} {name} -"
    return cluster.output("h1", "sh", "-c", command).strip()


def mounts(cluster, host, task_id=""):
    """The file systems in memory that hold secrets and configs on a host, of one task or of all."""
    found = cluster.output(host, "cat", "/proc/self/mounts").splitlines()
    return [line for line in found if f"{task_id}/delivered " in line]


def container(cluster, name):
    (task,) = cluster.wait_running(name, 1)
    return task, cluster.hosts_of([task])[0]


def in_container(cluster, name, *command):
    task, host = container(cluster, name)
    pid = cluster.output(host, "cat", f"/run/swarm/containers/{task['ID']}/pid").strip()
    return cluster.output(host, "nsenter", "-t", pid, "-m", "-p", *command)


# --- the walk-through ------------------------------------------------------------------------------------


@BOTH_DOORS
def test_a_password_is_replaced_and_the_old_one_removed(cluster, door):
    """Create db_pass, use it under another name, owner and mode, replace it by an update, remove it."""
    name = f"db-{door[0]}"
    create(cluster, "secret", "db_pass", "first", door=door)
    reference = "target=password,uid=2000,gid=3000,mode=0400"
    cluster.output(
        "h1", *door, "service", "create", "-d", "--no-resolve-image", "--name", name, *QUICK_END,
        "--secret", f"source=db_pass,{reference}", "web", "sh", "-c", SHOW,
    )  # fmt: skip
    cluster.wait_until(lambda: logs(cluster, name) == "2000:3000 400\nfirst\n", "the secret is there")
    create(cluster, "secret", "db_pass_1", "second", door=door)
    refused = cluster.run("h1", *door, "secret", "rm", "db_pass")
    assert refused.returncode == 1
    assert f"secret 'db_pass' is in use by the following service: {name}" in refused.stderr
    cluster.output(
        "h1", *door, "service", "update", "-d", "--secret-rm", "db_pass",
        "--secret-add", f"source=db_pass_1,{reference}", name,
    )  # fmt: skip
    cluster.wait_until(lambda: "2000:3000 400\nsecond\n" in logs(cluster, name), "the new one is there")
    cluster.wait_running(name, 1)
    assert cluster.output("h1", *door, "secret", "rm", "db_pass") == "db_pass\n"
    cluster.output("h1", *door, "service", "rm", name)
    assert cluster.output("h1", *door, "secret", "rm", "db_pass_1") == "db_pass_1\n"
    assert cluster.get("/secrets") == []


@BOTH_DOORS
def test_short_forms_defaults_and_what_inspect_tells(cluster, door):
    create(cluster, "secret", "key", "k1", "--label", "app=web", door=door)
    create(cluster, "config", "app.conf", "listen 80", door=door)
    script = 'for f in /run/secrets/key /app.conf; do stat -c "%u:%g %a %s" $f; done; echo x > /app.conf'
    options = ("--secret", "key", "--config", "app.conf", "--restart-condition", "none")
    name = f"short-{door[0]}"
    cluster.output(
        "h1", *door, "service", "create", "-d", "--no-resolve-image", "--name", name, *options,
        "web", "sh", "-c", script,
    )  # fmt: skip
    wait_ended(cluster, name, "failed")
    cluster.wait_until(
        lambda: (
            logs(cluster, name).splitlines()
            == ["0:0 444 2", "0:0 444 9", "sh: can't create /app.conf: Read-only file system"]
        ),
        "both are there and read-only",
    )
    (secret,) = json.loads(cluster.output("h1", *door, "secret", "inspect", "key"))
    assert secret["Spec"] == {"Name": "key", "Labels": {"app": "web"}}
    (config,) = json.loads(cluster.output("h1", *door, "config", "inspect", "app.conf"))
    assert config["Spec"]["Data"] == "bGlzdGVuIDgw"
    assert "key" in cluster.output("h1", *door, "secret", "ls", "-f", "label=app=web")
    cluster.output("h1", *door, "service", "rm", name)
    cluster.output("h1", *door, "secret", "rm", "key")
    cluster.output("h1", *door, "config", "rm", "app.conf")


def test_docker_py(cluster):
    client = docker.DockerClient(base_url=f"unix://{cluster.lab.socket_path('h1')}", timeout=30)
    try:
        secret = client.secrets.create(name="py_secret", data=b"from python", labels={"a": "b"})
        config = client.configs.create(name="py_config", data=b"conf")
        made = client.services.create(
            "web",
            ["sh", "-c", "cat /run/secrets/s /etc/c; echo; exec sleep 1000"],
            name="py",
            stop_grace_period=10**9,
            secrets=[docker.types.SecretReference(secret.id, "py_secret", filename="s")],
            configs=[docker.types.ConfigReference(config.id, "py_config", filename="/etc/c")],
        )
        cluster.wait_until(lambda: logs(cluster, "py") == "from pythonconf\n", "both are read")
        assert [s.name for s in client.secrets.list(filters={"name": "py_"})] == ["py_secret"]
        with pytest.raises(docker.errors.APIError, match="in use by the following service: py"):
            secret.remove()
        made.remove()
        secret.remove()
        config.remove()
        with pytest.raises(docker.errors.NotFound):
            client.secrets.get("py_secret")
    finally:
        client.close()


def test_the_largest_of_both_arrive_whole(cluster):
    sizes = {"secret": 500 * 1024 - 1, "config": 1000 * 1024 - 1}
    for kind, size in sizes.items():
        make = f"head -c {size} /dev/zero | tr '\\0' x | swarm {kind} create large -"
        cluster.output("h1", "sh", "-c", make)
        one_more = f"head -c {size + 1} /dev/zero | swarm {kind} create larger -"
        refused = cluster.run("h1", "sh", "-c", one_more)
        assert f"{kind} data must be larger than 0 and less than {size + 1} bytes" in refused.stderr
    script = "for f in /run/secrets/large /large; do tr -d x < $f | wc -c; wc -c < $f; done; exec sleep 1000"
    options = ("--secret", "large", "--config", "large", *QUICK_END, "--replicas", "3")
    with service(cluster, "large", *options, command=("sh", "-c", script)):
        cluster.wait_until(
            lambda: sorted(logs(cluster, "large").split()) == sorted(["0", "511999", "0", "1023999"] * 3),
            "all three tasks have both",
        )
    cluster.swarm("h1", "secret", "rm", "large")
    cluster.swarm("h1", "config", "rm", "large")


# --- delivery --------------------------------------------------------------------------------------------


def test_only_the_host_that_runs_the_task_gets_it_and_it_is_gone_with_the_task(cluster):
    create(cluster, "secret", "near", "only here")
    with service(
        cluster, "near", "--secret", "near", "--constraint", "node.hostname==h2", *QUICK_END,
        command=("sleep", "1000"),
    ):  # fmt: skip
        task, host = container(cluster, "near")
        assert host == "h2"
        (mount,) = mounts(cluster, "h2", task["ID"])
        assert mounts(cluster, "h1", task["ID"]) == mounts(cluster, "h3", task["ID"]) == []
        options = set(mount.split()[3].split(","))
        assert {"nosuid", "nodev", "noexec", "mode=700"} <= options
        inner = in_container(cluster, "near", "cat", "/proc/mounts").splitlines()
        (bound,) = (line.split() for line in inner if " /run/secrets/near " in line)
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(bound[3].split(","))
        cluster.swarm("h1", "service", "scale", "-d", "near=0")
        cluster.wait_until(
            lambda: all(t["Status"]["State"] != "running" for t in cluster.tasks("near")), "it has ended"
        )
        clock = SystemClock()
        ended = asked = clock.monotonic()
        while mounts(cluster, "h2", task["ID"]):  # a slow look counts from its beginning
            assert asked - ended < GONE_WITHIN_S, "it is still there"
            asked = clock.monotonic()
    cluster.swarm("h1", "secret", "rm", "near")


def test_a_swarmd_that_restarts_is_told_again_and_touches_nothing(cluster):
    create(cluster, "secret", "kept", "still here")
    with service(
        cluster, "kept", "--secret", "kept", "--constraint", "node.hostname==h2", *QUICK_END,
        command=("sh", "-c", "cat /run/secrets/kept; echo; exec sleep 1000"),
    ):  # fmt: skip
        task, _ = container(cluster, "kept")
        before = mounts(cluster, "h2")
        cluster.kill_daemon("h2")
        cluster.wait_daemon("h2")
        cluster.wait_until(lambda: cluster.node_states()["h2"] == "ready", "h2 is back")
        assert mounts(cluster, "h2") == before
        assert in_container(cluster, "kept", "cat", "/run/secrets/kept") == "still here"
        cluster.swarm("h1", "service", "scale", "-d", "kept=2")
        running = cluster.wait_running("kept", 2)
        assert task["ID"] in {t["ID"] for t in running}
        cluster.wait_until(lambda: logs(cluster, "kept") == "still here\n" * 2, "the new task reads it too")
    cluster.wait_until(lambda: not mounts(cluster, "h2"), "nothing is left of it")
    cluster.swarm("h1", "secret", "rm", "kept")


def test_a_host_that_lost_its_power_has_none_until_its_tasks_run_again(cluster):
    create(cluster, "secret", "dark", "in the dark")
    with service(
        cluster, "dark", "--secret", "dark", "--constraint", "node.hostname==h3", *QUICK_END,
        command=("sh", "-c", "cat /run/secrets/dark; echo; exec sleep 1000"),
    ):  # fmt: skip
        first, _ = container(cluster, "dark")
        cluster.lab.kill("h3")
        cluster.swarm("h1", "service", "scale", "-d", "dark=0")
        cluster.lab.start("h3")
        cluster.wait_until(lambda: cluster.node_states()["h3"] == "ready", "h3 is back", 40)
        assert mounts(cluster, "h3") == []
        cluster.swarm("h1", "service", "scale", "-d", "dark=1")
        again, _ = container(cluster, "dark")
        assert again["ID"] != first["ID"]
        cluster.wait_until(lambda: "in the dark\n" in logs(cluster, "dark"), "the new task reads it")
    cluster.swarm("h1", "secret", "rm", "dark")


def test_a_place_that_the_image_does_not_have_free_fails_the_task_and_says_so(cluster):
    create(cluster, "config", "misplaced", "x")
    options = ("--config", "source=misplaced,target=/etc", "--restart-condition", "none")
    with service(cluster, "misplaced", *options, command=("true",)):
        task = cluster.wait_until(
            partial(ended_badly, cluster, "misplaced"), "the task has ended with an error"
        )
        assert task["Status"]["Err"] == "cannot put a file at /etc: the image has a directory there"
    cluster.swarm("h1", "config", "rm", "misplaced")


def ended_badly(cluster, name):
    return next((t for t in cluster.tasks(name) if t["Status"]["State"] in ("rejected", "failed")), None)


def test_a_read_only_root_and_a_deep_place(cluster):
    create(cluster, "config", "deep", "found")
    options = ("--config", "source=deep,target=/etc/app/conf.d/x.conf", "--read-only", *QUICK_END)
    script = "cat /etc/app/conf.d/x.conf; echo; exec sleep 1000"
    with service(cluster, "deep", *options, command=("sh", "-c", script)):
        cluster.wait_until(lambda: logs(cluster, "deep") == "found\n", "it is read")
    cluster.swarm("h1", "config", "rm", "deep")


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("source=bad,target=../x", "invalid target file name provided: '../x' for 'bad'"),
        ("source=bad,target=/etc/../x", "invalid target file name provided: '/etc/../x' for 'bad'"),
        ("source=bad,target=/proc/x", "no file can be put at '/proc/x'"),
        ("source=bad,uid=root", "invalid uid 'root': it must be a number from 0 to"),
        ("source=bad,gid=-1", "invalid gid '-1'"),
        ("source=bad,mode=0777777", "invalid mode 777777"),
        ("nobody", "secret not found: nobody"),
        ("source=bad,bogus=1", "invalid field key: bogus"),
    ],
)
def test_bad_references_are_refused_and_change_nothing(cluster, reference, sentence):
    if not cluster.get("/secrets", filters={"name": ["bad"]}):
        create(cluster, "secret", "bad", "x")
    before = cluster.objects()
    arguments = ("service", "create", "-d", "--name", "bad", "--secret", reference, "web", "true")
    assert sentence in cluster.refused("h1", *arguments)
    assert cluster.objects() == before


def test_everything_is_tidied_away(cluster):
    cluster.swarm("h1", "secret", "rm", "bad")
    assert cluster.get("/secrets") == cluster.get("/configs") == cluster.get("/services") == []
    cluster.wait_clean()
    for host in cluster.hosts:
        assert mounts(cluster, host) == []
