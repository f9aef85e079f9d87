"""How long a host's first process waits before it starts a daemon again."""

from __future__ import annotations

from swarm.lab.init import FIRST_DELAY_S, MAX_DELAY_S, STEADY_S, next_delay


def test_a_daemon_that_ends_at_once_is_started_ever_more_slowly():
    delays = [FIRST_DELAY_S]
    while delays[-1] < MAX_DELAY_S:
        delays.append(next_delay(delays[-1], ran_s=0))
        assert delays[-1] > delays[-2]
    assert len(delays) < 10
    assert next_delay(MAX_DELAY_S, ran_s=0) == MAX_DELAY_S


def test_a_daemon_that_ran_for_long_is_started_at_once():
    assert next_delay(MAX_DELAY_S, ran_s=STEADY_S) == FIRST_DELAY_S
