"""Health checks on real hosts: when a task counts as running, and what becomes of one that is not well."""

from __future__ import annotations

import pytest

from tests.integration.cluster import Probe, service, wait_ended

pytestmark = pytest.mark.root

PORT = 8090
QUICK = ("--health-interval", "200ms", "--health-timeout", "15s", "--stop-grace-period", "1s")


@pytest.fixture
def signs(tmp_path):
    """A folder that the tasks see as /signs: files in it tell the checks what to find."""
    tmp_path.chmod(0o755)
    return tmp_path


def checked(signs, line):
    return ("--mount", f"type=bind,source={signs},target=/signs", "--health-cmd", line, *QUICK)


def answers(cluster):
    try:
        return bool(cluster.url_get("h1", PORT))
    except OSError:
        return False


def states(cluster, name):
    return [task["Status"]["State"] for task in cluster.tasks(name)]


def test_a_task_runs_when_it_is_healthy_and_not_before(cluster, signs):
    options = (*checked(signs, "echo asked >> /signs/asked; test -e /signs/ok"), "--health-retries", "1000")
    with service(cluster, "slow", "-p", f"{PORT}:80", *options):
        cluster.wait_until(lambda: states(cluster, "slow") == ["starting"], "it is starting")
        (task,) = cluster.tasks("slow")
        asked = signs / "asked"
        cluster.wait_until(lambda: asked.exists() and asked.stat().st_size > 20, "it was probed often")
        assert states(cluster, "slow") == ["starting"]
        (signs / "ok").touch()
        (running,) = cluster.wait_running("slow", 1)
        assert running["ID"] == task["ID"]
        cluster.wait_until(lambda: answers(cluster), "the port answers")


def test_a_task_that_never_becomes_healthy_fails_with_what_the_check_said(cluster, signs):
    options = (
        *checked(signs, "echo not today; false"),
        "--health-retries",
        "2",
        "--restart-condition",
        "none",
    )
    with service(cluster, "never", *options):
        failed = wait_ended(cluster, "never", "failed")
        assert failed["Status"]["Err"] == "task: unhealthy container: not today"


def test_an_unhealthy_task_is_replaced_and_no_request_is_lost(cluster, signs):
    options = (
        *checked(signs, "wget -q -O /dev/null http://127.0.0.1/ && test ! -e /signs/bad-$SLOT-$TASK"),
        *("--health-retries", "2", "--restart-delay", "100ms", "--replicas", "2", "-p", f"{PORT}:80"),
        *("-e", "SLOT={{.Task.Slot}}", "-e", "TASK={{.Task.ID}}"),
    )
    with service(cluster, "twins", *options):
        tasks = cluster.wait_running("twins", 2)
        ill = tasks[0]
        cluster.wait_until(lambda: answers(cluster), "the news has reached h1's balancer")
        with Probe(cluster.lab.address("h1"), PORT) as probe:
            (signs / f"bad-{ill['Slot']}-{ill['ID']}").touch()
            failed = wait_ended(cluster, "twins", "failed")
            cluster.wait_running("twins", 2)
        assert failed["ID"] == ill["ID"]
        assert failed["Status"]["Err"].startswith("task: unhealthy container")
        assert probe.answers
        assert probe.failures == []


def test_a_swarmd_that_comes_back_goes_on_probing(cluster, signs):
    options = (
        *checked(signs, "test ! -e /signs/bad"),
        "--health-retries",
        "1",
        "--restart-condition",
        "none",
    )
    with service(cluster, "steady", *options, "--constraint", "node.hostname==h2"):
        (task,) = cluster.wait_running("steady", 1)
        cluster.kill_daemon("h2")
        cluster.wait_daemon("h2")
        cluster.wait_until(
            lambda: [t["ID"] for t in cluster.running("steady")] == [task["ID"]], "the task runs on"
        )
        (signs / "bad").touch()
        assert wait_ended(cluster, "steady", "failed")["ID"] == task["ID"]


def test_the_programs_last_words_are_in_its_error(cluster):
    script = "echo starting; echo 'cannot open /etc/app.conf' >&2; exit 4"
    with service(cluster, "talker", "--restart-condition", "none", command=("sh", "-c", script)):
        failed = wait_ended(cluster, "talker", "failed")
        assert failed["Status"]["Err"] == "task: non-zero exit (4): cannot open /etc/app.conf"


def test_nothing_is_left(cluster):
    cluster.wait_clean(*cluster.hosts)
