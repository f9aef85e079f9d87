"""What a service asks for, it gets: placement, limits, mounts, signals, restarts; on three real hosts."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest

from swarm.base.clock import SystemClock
from tests.integration.cluster import json_lines, logs, service, wait_ended

pytestmark = pytest.mark.root

ALL = ("h1", "h2", "h3")
QUICK_END = ("--stop-grace-period", "1s")
SLEEP = ("sleep", "1000")


# --- placement -----------------------------------------------------------------------------------------


def test_max_replicas_per_node_are_held_and_the_rest_says_why(cluster):
    options = ("--replicas", "4", "--replicas-max-per-node", "1")
    with service(cluster, "spread", *options, *QUICK_END, command=SLEEP):
        cluster.wait_until(lambda: len(cluster.running("spread")) == 3, "three run")
        assert cluster.hosts_of(cluster.running("spread")) == list(ALL)
        waiting = cluster.wait_until(partial(pending_reasons, cluster, "spread"), "the fourth says why")
        assert waiting == ["no suitable node (max replicas per node limit exceed)"]


def pending_reasons(cluster, name):
    return [
        t["Status"]["Err"]
        for t in cluster.tasks(name)
        if t["Status"]["State"] == "pending" and t["Status"].get("Err")
    ]


def test_reservations_count(cluster):
    with service(cluster, "huge", "--reserve-memory", "1000g"):
        found = cluster.wait_until(partial(pending_reasons, cluster, "huge"), "it says why it waits")
        assert found == ["no suitable node (insufficient resources on 3 nodes)"]
        assert "no suitable node (insuf" in cluster.swarm("h1", "service", "ps", "huge")


def test_a_constraint_nobody_meets(cluster):
    with service(cluster, "nowhere", "--constraint", "node.hostname==h9"):
        (reason,) = cluster.wait_until(partial(pending_reasons, cluster, "nowhere"), "it says why it waits")
        assert reason == "no suitable node (scheduling constraints not satisfied on 3 nodes)"


# --- the container -------------------------------------------------------------------------------------


def test_memory_limit_bites_and_shows(cluster):
    options = ("--limit-memory", "16m", "--restart-condition", "none")
    command = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    with service(cluster, "greedy", *options, command=command):
        task = wait_ended(cluster, "greedy", "failed")
        assert task["Status"]["ContainerStatus"]["ExitCode"] == 137
        shown = cluster.swarm("h1", "service", "ps", "--no-trunc", "greedy")
        assert "task: non-zero exit (137): out of memory" in shown


def test_pids_limit_bites(cluster):
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; echo all"
    options = ("--limit-pids", "5", "--restart-condition", "none")
    with service(cluster, "many", *options, command=("sh", "-c", script)):
        wait_ended(cluster, "many", "failed")
        assert "can't fork" in logs(cluster, "many")


def test_settings_reach_the_container(cluster, tmp_path):
    script = 'echo "$GREETING $(id -u):$(id -g) $(pwd) $0 $*"; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us'
    options = [
        *("-e", "GREETING=hello you", "--user", "www-data", "--workdir", "/tmp"),
        *("--entrypoint", f"sh -c '{script}'", "--limit-cpu", "0.5"),
        *("-l", "tier=front", "--container-label", "team=blue", "--restart-condition", "none"),
    ]
    with service(cluster, "tuned", *options, command=("one", "two")):
        wait_ended(cluster, "tuned", "complete")
        said = logs(cluster, "tuned").splitlines()
        assert said[0] == "hello you 33:33 /tmp one two"
        (found,) = json.loads(cluster.swarm("h1", "service", "inspect", "tuned"))
        assert found["Spec"]["Labels"] == {"tier": "front"}
        assert found["Spec"]["TaskTemplate"]["ContainerSpec"]["Labels"] == {"team": "blue"}
        assert cluster.swarm("h1", "service", "ls", "-q", "-f", "label=tier=front").strip()


def test_mounts_volumes_binds_and_tmpfs(cluster, tmp_path):
    (tmp_path / "given").write_text("from the host\n")
    on_h2 = ("--constraint", "node.hostname==h2", "--restart-condition", "none")
    mounts = (
        *("--mount", "type=volume,source=kept,target=/kept"),
        *("--mount", f"type=bind,source={tmp_path},target=/host,readonly"),
        *("--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m"),
    )
    write = (
        "cat /host/given; touch /host/no 2>/dev/null || echo read-only; echo 1 >> /kept/runs; df -k /scratch"
    )
    with service(cluster, "writes", *on_h2, *mounts, command=("sh", "-c", write)):
        wait_ended(cluster, "writes", "complete")
        said = logs(cluster, "writes")
        assert said.startswith("from the host\nread-only\n")
        assert re.search(r"^tmpfs +1024 ", said, re.M), said
    with service(cluster, "reads", *on_h2, *mounts[:2], command=("cat", "/kept/runs")):
        wait_ended(cluster, "reads", "complete")
        assert logs(cluster, "reads") == "1\n"


def test_the_stop_signal_is_sent_then_after_the_grace_period_sigkill(cluster, tmp_path):
    loop = "echo up >> /out/{0}; while true; do sleep 0.1 & wait $!; echo on >> /out/{0}; done"
    out = ("--constraint", "node.hostname==h2", "--mount", f"type=bind,source={tmp_path},target=/out")
    polite = 'trap "echo stopped >> /out/polite; exit 0" USR1; ' + loop.format("polite")
    stubborn = 'trap "echo ignored >> /out/stubborn" TERM; ' + loop.format("stubborn")
    cluster.create("polite", *out, "--stop-signal", "SIGUSR1", command=("sh", "-c", polite))
    cluster.create("stubborn", *out, "--stop-grace-period", "3s", command=("sh", "-c", stubborn))
    for name in ("polite", "stubborn"):
        cluster.wait_until((tmp_path / name).exists, f"{name} has set its trap")
    clock = SystemClock()
    began = clock.monotonic()
    cluster.swarm("h1", "service", "rm", "polite", "stubborn")
    cluster.wait_until(lambda: are_gone(cluster.traces("h2"), "polite", "stubborn"), "they are gone", 12.0)
    assert clock.monotonic() - began > 3.0
    words = {name: (tmp_path / name).read_text().split() for name in ("polite", "stubborn")}
    assert words["polite"][-1] == "stopped"
    assert words["stubborn"].count("ignored") == 1
    after = words["stubborn"][words["stubborn"].index("ignored") :]
    assert len(after) >= 5, "it went on through its grace period"


def are_gone(traces, *names):
    return not any(f" {name}.1." in trace for name in names for trace in traces)


# --- failures ------------------------------------------------------------------------------------------


def test_failing_tasks_are_restarted_with_backoff_and_say_why(cluster):
    """Four services that fail in four ways, watched together."""
    cluster.create("fails", command=("sh", "-c", "exit 3"))
    cluster.create("lacks", command=("no-such-program",))
    cluster.create("unknown", image="no-such-image:1")
    quick = ("--restart-max-attempts", "2", "--restart-delay", "100ms")
    cluster.create("thrice", *quick, command=("false",))
    names = ("fails", "lacks", "unknown", "thrice")
    seen = {name: {} for name in names}
    clock = SystemClock()
    began = clock.monotonic()

    def observe():
        for name in names:
            seen[name] |= {task["ID"]: task for task in cluster.tasks(name)}
        has_ended = [t["Status"]["State"] == "failed" for t in seen["thrice"].values()]
        enough = len(has_ended) >= 3 and all(has_ended) and all(len(found) >= 3 for found in seen.values())
        return enough and clock.monotonic() - began > 6

    cluster.wait_until(observe, "each was tried three times")
    assert len(seen["thrice"]) == 3
    for name in ("fails", "lacks", "unknown"):
        # At 0, 0.5, 1.5, 3.5, 7.5, 15.5 s.
        assert len(seen[name]) <= 6, (name, len(seen[name]))
    assert "task: non-zero exit (3)" in cluster.swarm("h1", "service", "ps", "--no-trunc", "fails")
    shown = cluster.swarm("h1", "service", "ps", "--no-trunc", "lacks")
    assert 'exec: "no-such-program": executable file not found in $PATH' in shown
    assert "cannot pull image no-such-image:1" in cluster.swarm(
        "h1", "service", "ps", "--no-trunc", "unknown"
    )
    cluster.swarm("h1", "service", "rm", *names)


def test_what_has_done_its_work_is_not_run_again_on_failure_only(cluster):
    with service(cluster, "once", "--restart-condition", "on-failure", command=("true",)):
        wait_ended(cluster, "once", "complete")
        (row,) = json_lines(cluster.swarm("h1", "service", "ls", "--format", "json", "-f", "name=once"))
        assert row["Replicas"] == "0/1"
        assert len(cluster.tasks("once")) == 1
