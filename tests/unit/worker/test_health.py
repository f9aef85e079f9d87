"""Which check a container has, and what its results amount to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.container import HealthConfig
from swarm.worker.health import (
    Health,
    HealthPlan,
    Probe,
    Verdict,
    after_probe,
    health_plan,
    pause_before_probe,
)
from swarm.worker.images.image import ImageHealthcheck

SECOND = timedelta(seconds=1)
IMAGE = ImageHealthcheck(test=("CMD-SHELL", "check"), interval=7 * SECOND, retries=9)
GOOD, BAD = Probe(is_good=True), Probe(is_good=False, output="refused")


def test_the_images_check_is_the_default_and_the_spec_goes_before_it():
    assert health_plan(None, None) is None
    assert health_plan(HealthConfig(), None) is None
    of_image = health_plan(None, IMAGE)
    assert of_image is not None
    assert (of_image.args, of_image.interval, of_image.retries) == (("/bin/sh", "-c", "check"), 7 * SECOND, 9)
    assert of_image.timeout == 30 * SECOND
    mixed = health_plan(HealthConfig(retries=2), IMAGE)
    assert mixed is not None
    assert (mixed.args[-1], mixed.interval, mixed.retries) == ("check", 7 * SECOND, 2)
    own = health_plan(HealthConfig(test=("CMD", "probe", "-x")), None)
    assert own is not None
    assert (own.args, own.interval, own.retries) == (("probe", "-x"), 30 * SECOND, 3)


@pytest.mark.parametrize(
    "test", [("NONE",), ("CMD",), ("CMD-SHELL",), ("WHAT", "x"), ("CMD-SHELL", "a", "b")]
)
def test_no_check(test):
    assert health_plan(HealthConfig(test=test), IMAGE) is None


def judged(plan, *probes, every=SECOND, verdict=None):
    verdict, age = verdict or Verdict(), timedelta(0)
    for probe in probes:
        age += every
        verdict = after_probe(plan, verdict, probe, age)
    return verdict


def test_so_many_failures_in_a_row_are_too_many():
    plan = HealthPlan(args=("x",), retries=3)
    assert judged(plan, BAD, BAD).health is Health.STARTING
    assert judged(plan, BAD, BAD, BAD) == Verdict(health=Health.UNHEALTHY, streak=3, output="refused")
    assert judged(plan, BAD, BAD, GOOD, BAD, BAD).health is Health.HEALTHY
    assert judged(plan, GOOD, BAD, BAD, BAD).health is Health.UNHEALTHY


def test_failures_of_the_start_period_do_not_count_until_it_was_healthy():
    plan = HealthPlan(args=("x",), retries=1, start_period=10 * SECOND)
    assert judged(plan, *[BAD] * 9) == Verdict(output="refused")
    assert judged(plan, *[BAD] * 10).health is Health.UNHEALTHY
    assert judged(plan, BAD, GOOD, BAD).health is Health.UNHEALTHY


def test_the_start_periods_own_pace():
    plan = HealthPlan(args=("x",), start_period=10 * SECOND)
    assert pause_before_probe(plan, Verdict(), SECOND) == 5 * SECOND
    assert pause_before_probe(plan, Verdict(), 10 * SECOND) == 30 * SECOND
    assert pause_before_probe(plan, Verdict(health=Health.HEALTHY), SECOND) == 30 * SECOND
    assert pause_before_probe(HealthPlan(args=("x",)), Verdict(), timedelta(0)) == 30 * SECOND


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.integers(0, 10))
def test_unhealthy_takes_as_many_failures_as_said(results, retries, period):
    plan = HealthPlan(args=("x",), retries=retries, start_period=period * SECOND)
    verdict, streak = Verdict(), 0
    for age, is_good in enumerate(results, start=1):
        verdict = after_probe(plan, verdict, Probe(is_good=is_good), age * SECOND)
        streak = 0 if is_good else streak + 1
        assert verdict.streak <= streak
        if is_good:
            assert verdict.health is Health.HEALTHY
        if verdict.health is Health.UNHEALTHY:
            assert streak >= retries
            return
