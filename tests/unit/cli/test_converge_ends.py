"""How far a job is and when it cannot end; how the wait for a rollback ends."""

from __future__ import annotations

from typing import Any

from swarm.cli.converge import Convergence


def job(mode: dict[str, Any], **more: Any) -> dict[str, Any]:
    template = {"ContainerSpec": {}, "RestartPolicy": more.get("policy", {})}
    spec = {"Name": "j", "Labels": more.get("labels", {}), "Mode": mode, "TaskTemplate": template}
    status = {"JobIteration": {"Index": 2}} | more.get("status", {"LastExecution": "2026-01-01T00:00:00Z"})
    return {"ID": "s", "Spec": spec, "JobStatus": status}


def task(slot: int, state: str, iteration: int = 2, err: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "ID": f"t{slot}",
        "NodeID": f"n{slot}",
        "CreatedAt": "2026-01-01T00:00:00Z",
        "JobIteration": {"Index": iteration},
        "DesiredState": "complete",
        "Status": {"State": state} | ({"Err": err} if err else {}),
    }
    return found | ({"Slot": slot} if slot else {})


REPLICATED = {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 3}}


def test_a_job_counts_its_completions_and_ends_with_the_last() -> None:
    view = Convergence().handle(
        job(REPLICATED), [task(0, "complete"), task(1, "running"), task(2, "complete", 1)], [], 0
    )
    texts = {line.id: line.text.strip() for line in view.lines}
    assert texts == {
        "job progress": "1 out of 3 complete",
        "active tasks": "1 out of 2 tasks",
        "1/3": "complete",
        "2/3": "running",
    }
    assert not view.done
    assert Convergence().handle(job(REPLICATED), [task(n, "complete") for n in range(3)], [], 0).done


def test_a_global_job_goes_by_nodes() -> None:
    mode: dict[str, Any] = {"GlobalJob": {}}
    assert Convergence().handle(job(mode), [], [], 0).lines[0].text == "waiting for tasks"
    view = Convergence().handle(job(mode), [task(0, "complete"), task(1, "starting")], [], 0)
    assert view.lines[0].text == "1 out of 2 complete"


def test_a_job_that_is_not_tried_again_has_failed() -> None:
    tasks = [task(0, "failed", err="task: non-zero exit (3)")]
    again = Convergence().handle(job(REPLICATED), tasks, [], 0)
    assert not again.failure
    never = Convergence().handle(job(REPLICATED, policy={"Condition": "none"}), tasks, [], 0)
    assert never.failure == "job failed: task t0: task: non-zero exit (3)"


def test_nobody_waits_for_a_schedule() -> None:
    service = job(REPLICATED, labels={"swarm.schedule": "@daily"}, status={})
    assert Convergence().handle(service, [], [], 0).done


def rolled_back(state: str) -> dict[str, Any]:
    spec = {"Name": "w", "Mode": {"Replicated": {"Replicas": 0}}, "UpdateConfig": {"Monitor": 1_000_000_000}}
    message = "task t failed" if state == "rollback_started" else "rollback completed"
    return {"ID": "s", "Spec": spec, "UpdateStatus": {"State": state, "Message": message}}


def test_a_rollback_that_nobody_asked_for_is_waited_for_and_is_a_failure() -> None:
    convergence = Convergence()
    for now in range(5):
        view = convergence.handle(rolled_back("rollback_started"), [], [], now)
        assert not view.done
    assert (
        convergence.handle(rolled_back("rollback_completed"), [], [], 5).failure
        == "service rolled back: task t failed"
    )


def test_a_rollback_that_was_asked_for_is_none() -> None:
    convergence = Convergence(is_rollback=True)
    convergence.handle(rolled_back("rollback_started"), [], [], 0)
    view = convergence.handle(rolled_back("rollback_completed"), [], [], 5)
    assert view.done
    assert not view.failure
