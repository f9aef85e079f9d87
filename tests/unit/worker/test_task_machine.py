"""What a task does next, and what a result makes of it, for every state."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.objects import ContainerStatus, TaskStatus
from swarm.model.task_state import DESIRED_STATES, Owner, TaskState, can_transition
from swarm.model.types import PortConfig
from swarm.worker.task_machine import RETRY_LIMIT, Outcome, Step, after, next_step, resumed, retry_delay

NOW = datetime(2026, 1, 1, tzinfo=UTC)
S = TaskState
WORKING = {
    S.ASSIGNED: Step.ACCEPT,
    S.ACCEPTED: Step.ANNOUNCE_PREPARING,
    S.PREPARING: Step.PREPARE,
    S.READY: Step.ANNOUNCE_STARTING,
    S.STARTING: Step.START,
    S.RUNNING: Step.WAIT,
}
DEAD = (S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.REMOVE, S.ORPHANED)

states = st.sampled_from(list(TaskState))
outcomes = st.builds(
    Outcome,
    error=st.sampled_from(["", "broken"]),
    exit_code=st.sampled_from([None, 0, 1, 137]),
    pid=st.integers(0, 9),
)


def status(state, **more):
    return TaskStatus(state=state, **more)


@pytest.mark.parametrize("state", list(TaskState))
@pytest.mark.parametrize("desired", sorted(DESIRED_STATES))
def test_the_next_step_of_every_state(state, desired):
    step = next_step(state, desired)
    if state in DEAD:
        assert step is Step.DONE
    elif desired >= S.SHUTDOWN:
        assert step is Step.STOP
    elif state is S.READY and desired is S.READY:
        assert step is Step.REST
    else:
        assert step is WORKING.get(state, Step.REST)


@given(states, st.sampled_from(list(Step)), outcomes)
def test_a_state_never_goes_back_where_its_step_is_taken(state, step, outcome):
    if step not in {next_step(state, desired) for desired in DESIRED_STATES}:
        return
    then = after(step, status(state), outcome, NOW)
    assert then.state == state or can_transition(Owner.AGENT, state, then.state)


@given(states.filter(lambda s: s >= S.ASSIGNED), st.lists(outcomes, min_size=12, max_size=12))
def test_every_task_that_is_to_run_comes_to_an_end(state, results):
    seen = status(state)
    for result in results:
        seen = after(next_step(seen.state, S.RUNNING), seen, result, NOW)
    assert next_step(seen.state, S.RUNNING) is Step.DONE


@pytest.mark.parametrize(
    ("step", "state", "outcome", "expected", "err"),
    [
        (Step.PREPARE, S.PREPARING, Outcome(error="no image"), S.REJECTED, "no image"),
        (Step.START, S.STARTING, Outcome(error="no such file", exit_code=127), S.FAILED, "no such file"),
        (Step.WAIT, S.RUNNING, Outcome(exit_code=0), S.COMPLETE, ""),
        (Step.WAIT, S.RUNNING, Outcome(exit_code=3), S.FAILED, "task: non-zero exit (3)"),
        (Step.WAIT, S.RUNNING, Outcome(error="out of memory", exit_code=137), S.FAILED, "out of memory"),
        (Step.WAIT, S.RUNNING, Outcome(error="supervisor lost", exit_code=0), S.FAILED, "supervisor lost"),
        (Step.STOP, S.RUNNING, Outcome(exit_code=143), S.SHUTDOWN, ""),
        (Step.STOP, S.PREPARING, Outcome(), S.SHUTDOWN, ""),
    ],
)
def test_results(step, state, outcome, expected, err):
    then = after(step, status(state, err="before"), outcome, NOW)
    assert (then.state, then.err, then.timestamp) == (expected, err, NOW)
    code = then.container.exit_code if then.container else None
    assert code == outcome.exit_code


def test_what_is_known_of_the_container_is_kept():
    ports = (PortConfig(target_port=80, published_port=30000),)
    ready = after(Step.PREPARE, status(S.PREPARING), Outcome(ports=ports), NOW)
    running = after(Step.START, replace(ready, state=S.STARTING), Outcome(pid=7), NOW)
    ended = after(Step.WAIT, running, Outcome(exit_code=1), NOW)
    assert running.container == ContainerStatus(pid=7)
    assert ended.container == ContainerStatus(pid=7, exit_code=1)
    assert ended.ports == ports


@pytest.mark.parametrize(
    ("state", "known", "alive", "expected"),
    [
        (S.ASSIGNED, False, False, S.ASSIGNED),
        (S.PREPARING, False, False, S.PREPARING),
        (S.PREPARING, True, False, S.PREPARING),
        (S.READY, True, True, S.READY),
        (S.READY, False, False, S.FAILED),
        (S.STARTING, True, True, S.STARTING),
        (S.STARTING, True, False, S.RUNNING),
        (S.STARTING, False, False, S.FAILED),
        (S.RUNNING, True, True, S.RUNNING),
        (S.RUNNING, True, False, S.RUNNING),
        (S.RUNNING, False, False, S.FAILED),
        (S.COMPLETE, False, False, S.COMPLETE),
        (S.SHUTDOWN, True, False, S.SHUTDOWN),
    ],
)
def test_going_on_after_a_restart(state, known, alive, expected):
    then = resumed(status(state), is_known=known, is_alive=alive, now=NOW)
    assert then.state is expected
    assert bool(then.err) == (expected is S.FAILED)


def test_retries_wait_longer_up_to_a_limit():
    delays = [retry_delay(n) for n in range(40)]
    assert delays[0] == timedelta(milliseconds=200)
    assert delays == sorted(delays)
    assert delays[-1] == RETRY_LIMIT


@pytest.mark.parametrize(("step", "state"), [(Step.START, S.STARTING), (Step.WAIT, S.RUNNING)])
def test_what_is_unhealthy_is_shown_so_then_stopped_then_failed(step, state):
    unhealthy = after(
        step, status(state), Outcome(error="task: unhealthy container: no", is_unhealthy=True), NOW
    )
    assert (unhealthy.state, unhealthy.is_unhealthy, unhealthy.message) == (state, True, "unhealthy")
    assert next_step(state, S.RUNNING, is_unhealthy=True) is Step.EVICT
    assert next_step(state, S.SHUTDOWN, is_unhealthy=True) is Step.STOP
    failed = after(Step.EVICT, unhealthy, Outcome(exit_code=143), NOW)
    assert (failed.state, failed.err, failed.is_unhealthy) == (
        S.FAILED,
        "task: unhealthy container: no",
        False,
    )
    assert failed.container.exit_code == 143
    again = resumed(unhealthy, is_known=True, is_alive=True, now=NOW)
    assert next_step(again.state, S.RUNNING, is_unhealthy=again.is_unhealthy) is Step.EVICT


def test_a_container_that_ends_before_it_is_healthy_has_ended():
    done = after(Step.START, status(S.STARTING), Outcome(exit_code=0, pid=3), NOW)
    assert (done.state, done.err) == (S.COMPLETE, "")
    failed = after(Step.START, status(S.STARTING), Outcome(exit_code=2, error="task: non-zero exit (2)"), NOW)
    assert (failed.state, failed.err, failed.container.exit_code) == (S.FAILED, "task: non-zero exit (2)", 2)
