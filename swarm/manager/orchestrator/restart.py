"""Whether, and when, a slot whose task has ended gets another one.

The slot's tasks, the service's policy and `now` in; a `Restart`, or None for "not again", out.
Invariant: everything is derived from stored tasks, so a new leader goes on where the old one stopped, and no
delay is longer than what was asked for. Delays count from the moment of the decision: no host's clock is
trusted.

A restart that follows a long life waits FIRST_DELAY; each one after a short life twice as long as the last,
up to the policy's delay, or the service's `swarm.restart.max-delay`. That needs no history: an ended task's
delay is its `start_after - created_at`.
Source: SwarmKit manager/orchestrator/restart/restart.go, which always waits the whole delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from swarm.model.defaults import RESTART_POLICY
from swarm.model.objects import Service, Task
from swarm.model.options import service_options
from swarm.model.task_state import TaskState
from swarm.model.types import RestartCondition, RestartPolicy

FIRST_DELAY = timedelta(seconds=0.5)
"""A crash now and then should hardly be noticed."""

SHORT_LIFE = timedelta(seconds=10)
"""A task that ended sooner than this, or than twice its policy's delay, is failing again and again."""

OWN_ENDS = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})
"""The task ended by itself. One that was stopped or lost with its node is no failure of the service."""

NO_DELAY = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    delay: timedelta = NO_DELAY


def policy_of(service: Service) -> RestartPolicy:
    return service.spec.task_template.restart_policy or RESTART_POLICY


def plan_restart(tasks: Sequence[Task], service: Service, now: datetime) -> Restart | None:
    """What follows the newest of `tasks` (one slot's, oldest first, none of them fit to run)."""
    if not tasks:
        return Restart()
    last = tasks[-1]
    if last.status.state not in OWN_ENDS or last.spec_version != service.spec_version:
        return Restart()
    policy = policy_of(service)
    if policy.condition is RestartCondition.NONE:
        return None
    if policy.condition is RestartCondition.ON_FAILURE and last.status.state is TaskState.COMPLETE:
        return None
    if policy.max_attempts and _attempts(tasks, policy, now) >= policy.max_attempts:
        return None
    longest = service_options(service.spec.labels).restart_max_delay
    return Restart(delay=_delay(last, policy, policy.delay if longest is None else longest, now))


def _attempts(tasks: Sequence[Task], policy: RestartPolicy, now: datetime) -> int:
    """Restarts already made within the policy's window when the newest task ended."""
    last = tasks[-1]
    # Not `now`: a slot that was given up must not come to life when its attempts grow old. The host's clock
    # is believed only between two times of our own.
    ended_at = min(max(last.status.timestamp or now, last.meta.created_at or now), now)
    return sum(
        1
        for ended, successor in pairwise(tasks)
        if ended.status.state in OWN_ENDS
        and ended.spec_version == last.spec_version
        and (not policy.window or ended_at - (successor.meta.created_at or now) < policy.window)
    )


def _delay(last: Task, policy: RestartPolicy, longest: timedelta, now: datetime) -> timedelta:
    created = last.meta.created_at or now
    waited = last.start_after - created if last.start_after else NO_DELAY
    lived = now - (last.start_after or created)
    is_repeated = waited and lived < max(SHORT_LIFE, 2 * policy.delay)
    return min(longest, max(FIRST_DELAY, 2 * waited) if is_repeated else FIRST_DELAY)
