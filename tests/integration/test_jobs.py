"""Jobs, schedules, dependencies, autoscaling and rebalancing on real hosts, by `swarm` and by `docker`."""

from __future__ import annotations

import json

import pytest

from tests.integration.cluster import json_lines, logs, service, wait_ended

pytestmark = pytest.mark.root

HOSTS = ("h1", "h2", "h3")


@pytest.fixture
def signs(tmp_path):
    """A folder that the tasks see as /signs."""
    tmp_path.chmod(0o777)
    return tmp_path


def seen(signs):
    return ("--mount", f"type=bind,source={signs},target=/signs")


def ended(cluster, name):
    return [task for task in cluster.tasks(name) if task["Status"]["State"] == "complete"]


def held_up(cluster, name):
    """What its first task waits for."""
    return cluster.tasks(name)[0]["Status"].get("Err")


def minute(stamp):
    return stamp.rpartition(":")[0]


def replicas(cluster, program, name):
    (line,) = json_lines(
        cluster.output("h1", program, "service", "ls", "--filter", f"name={name}", "--format", "json")
    )
    return line["Replicas"]


def test_a_job_runs_each_completion_once_and_no_more_than_so_many_at_a_time(cluster, signs):
    # Nobody goes on before two have been seen at once: then there is room for a third, if it were let in.
    count = "mkdir /signs/$SLOT; found=$(ls -d /signs/[0-9]* | wc -l); echo $found"
    meet = "test $found -lt 2 || touch /signs/two; until test -e /signs/two; do sleep 0.05; done; sleep 0.3"
    script = f"{count}; {meet}; rmdir /signs/$SLOT"
    cluster.swarm(
        *("h1", "service", "create", "-q", "--name", "five", "--mode", "replicated-job"),
        *("--replicas", "5", "--max-concurrent", "2", "-e", "SLOT={{.Task.Slot}}", *seen(signs)),
        *("--constraint", "node.hostname==h2", "web", "sh", "-c", script),
    )
    assert len(ended(cluster, "five")) == 5, "an attached create waits for the end"
    for program in ("swarm", "docker"):
        assert replicas(cluster, program, "five") == "0/0 (5/5 completed)"
    found = [int(line) for line in logs(cluster, "five").split()]
    assert len(found) == 5
    assert max(found) == 2
    cluster.docker("h1", "service", "rm", "five")


def test_a_global_job_runs_on_every_node_and_again_when_it_is_forced(cluster):
    cluster.docker(
        "h1",
        "service",
        "create",
        "-q",
        "--name",
        "sweep",
        "--mode",
        "global-job",
        "web",
        "sh",
        "-c",
        "hostname",
    )
    first = ended(cluster, "sweep")
    assert cluster.hosts_of(first) == list(HOSTS)
    cluster.swarm("h1", "service", "update", "-q", "--force", "sweep")
    again = ended(cluster, "sweep")
    assert cluster.hosts_of(again) == list(HOSTS)
    assert {task["ID"] for task in first}.isdisjoint(task["ID"] for task in again)
    cluster.swarm("h1", "service", "rm", "sweep")


def test_a_job_is_tried_again_when_it_fails(cluster, signs):
    options = ("--mode", "replicated-job", *seen(signs), "--restart-delay", "100ms")
    command = ("sh", "-c", "mkdir /signs/first && exit 3; echo the second time")
    with service(cluster, "stubborn", "--constraint", "node.hostname==h1", *options, command=command):
        wait_ended(cluster, "stubborn", "complete")
        assert wait_ended(cluster, "stubborn", "failed")["Status"]["ContainerStatus"]["ExitCode"] == 3
        assert "the second time" in logs(cluster, "stubborn")


def test_tasks_wait_for_what_they_depend_on_and_say_so(cluster, signs):
    health = ("--health-cmd", "test -e /signs/ok", "--health-interval", "200ms", "--health-retries", "1000")
    job = ("--mode", "replicated-job", *seen(signs))
    until = "while ! test -e /signs/migrated; do sleep 0.1; done"
    with (
        service(cluster, "db", *seen(signs), *health),
        service(cluster, "migrate", *job, command=("sh", "-c", until)),
        service(cluster, "site", "--depends-on", "db:healthy,migrate:completed"),
    ):
        cluster.wait_until(
            lambda: [t for t in cluster.tasks("site") if t["Status"]["State"] == "ready"], "it is prepared"
        )
        explained = cluster.run("h1", "swarm", "service", "explain", "site")
        assert explained.returncode == 1
        assert "db" in explained.stdout
        (signs / "ok").touch()
        cluster.wait_running("db", 1)
        cluster.wait_until(
            lambda: held_up(cluster, "site") == "waiting for service migrate to be completed",
            "it waits for the job",
        )
        (signs / "migrated").touch()
        cluster.wait_running("site", 1)
        assert "circ" in cluster.refused("h1", "service", "update", "-d", "--depends-on", "site", "db")


def test_replicas_follow_the_load_and_a_schedule_the_clock(cluster, signs):
    schedule = ("--mode", "replicated-job", "--schedule", "* * * * *", "--history", "1")
    busy = "while sleep 0.5; do while test -e /signs/busy; do :; done; done"
    scale = ("--limit-cpu", "0.1", "--autoscale", "min=1,max=2,cpu=40%,cooldown=3s")
    with (
        service(cluster, "minutely", *schedule, command=("date",)),
        service(cluster, "worker", *seen(signs), *scale, command=("sh", "-c", busy)),
    ):
        cluster.wait_running("worker", 1)
        (signs / "busy").touch()
        cluster.wait_running("worker", 2, timeout_s=45.0)
        assert "cpu" in cluster.swarm("h1", "service", "inspect", "--pretty", "worker").lower()
        (signs / "busy").unlink()
        cluster.wait_running("worker", 1, timeout_s=45.0)
        job = wait_ended(cluster, "minutely", "complete", timeout_s=75.0)
        made = cluster.get("/services/minutely")["CreatedAt"]
        assert minute(job["CreatedAt"]) > minute(made), "it waits for the next full minute"
        decided = cluster.swarm(
            "h1", "events", "--since", "10m", "--until", "0s", "--filter", "service=worker"
        )
        assert "scaling.message" in decided


def test_tasks_move_to_a_node_that_came_back(cluster):
    cluster.swarm("h1", "node", "update", "--availability", "pause", "h2")
    cluster.swarm("h1", "node", "update", "--availability", "pause", "h3")
    with service(cluster, "even", "--replicas", "6"):
        cluster.wait_running("even", 6)
        for host in ("h2", "h3"):
            cluster.swarm("h1", "node", "update", "--availability", "active", host)
        cluster.swarm("h1", "service", "rebalance", "even")
        tasks = cluster.wait_until(
            lambda: cluster.hosts_of(cluster.wait_running("even", 6)) == sorted(HOSTS * 2), "two on each"
        )
        assert tasks
    assert json.loads(cluster.docker("h1", "node", "inspect", "h2"))[0]["Spec"]["Availability"] == "active"
