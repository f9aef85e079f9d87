"""Health checks: what is to be probed and when, and what the probes' results amount to. Pure.

In: the spec's check over the image's, and one result after another. Out: a `HealthPlan`, and a `Health` that
follows from it. Invariant: a failure in the start period does not count until a probe has gone well once.
Source: Docker's HEALTHCHECK (docs.docker.com/reference/dockerfile#healthcheck).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from swarm.model.container import HealthConfig
from swarm.worker.images.image import ImageHealthcheck

INTERVAL = timedelta(seconds=30)
TIMEOUT = timedelta(seconds=30)
RETRIES = 3
START_INTERVAL = timedelta(seconds=5)


class Health(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPlan:
    args: tuple[str, ...]
    interval: timedelta = INTERVAL
    """From the end of a probe to the next one."""
    timeout: timedelta = TIMEOUT
    retries: int = RETRIES
    start_period: timedelta = timedelta(0)
    start_interval: timedelta = START_INTERVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One result. The program's exit code 0 is health; anything else, or no end in time, is not."""

    is_good: bool
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What all probes so far amount to."""

    health: Health = Health.STARTING
    streak: int = 0
    """Failures in a row that count."""
    output: str = ""
    """Of the last probe."""


def health_plan(spec: HealthConfig | None, image: ImageHealthcheck | None) -> HealthPlan | None:
    """The check of a container; None where there is none. What the spec leaves open the image says."""
    wanted = spec or HealthConfig()
    test = wanted.test or (image.test if image else ())
    args = _args(test)
    if args is None:
        return None
    of_image = image or ImageHealthcheck(test=())
    return HealthPlan(
        args=args,
        interval=wanted.interval or of_image.interval or INTERVAL,
        timeout=wanted.timeout or of_image.timeout or TIMEOUT,
        retries=wanted.retries or of_image.retries or RETRIES,
        start_period=wanted.start_period or of_image.start_period or timedelta(0),
        start_interval=wanted.start_interval or of_image.start_interval or START_INTERVAL,
    )


def after_probe(plan: HealthPlan, before: Verdict, probe: Probe, since_start: timedelta) -> Verdict:
    """The verdict that follows `before`; `since_start` is the container's age when the probe ended."""
    if probe.is_good:
        return Verdict(health=Health.HEALTHY, output=probe.output)
    if before.health is Health.STARTING and since_start < plan.start_period:
        return replace(before, output=probe.output)
    streak = before.streak + 1
    health = Health.UNHEALTHY if streak >= plan.retries else before.health
    return Verdict(health=health, streak=streak, output=probe.output)


def pause_before_probe(plan: HealthPlan, verdict: Verdict, since_start: timedelta) -> timedelta:
    """How long to wait before the next probe."""
    if verdict.health is Health.STARTING and since_start < plan.start_period:
        return plan.start_interval
    return plan.interval


def _args(test: tuple[str, ...]) -> tuple[str, ...] | None:
    match test:
        case ("CMD", _, *_):
            return test[1:]
        case ("CMD-SHELL", line):
            return ("/bin/sh", "-c", line)
        case _:
            return None
