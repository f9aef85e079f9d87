"""When managers compare their copies of the state, and what is concluded."""

from __future__ import annotations

import pytest

from swarm.manager.store_check import (
    AGAIN_S,
    DIFFERENCES,
    EVERY_S,
    FIRST_S,
    MINORITY,
    UNDECIDED,
    StoreCheck,
    StoreHash,
    compare,
)


def hashes(*values, compacted=5):
    return [StoreHash(value, compacted) for value in values]


@pytest.mark.parametrize(
    ("own", "others", "finding"),
    [
        (1, (), None),
        (1, (1,), ""),
        (1, (2,), UNDECIDED),
        (1, (1, 2), ""),
        (2, (1, 1), MINORITY),
        (2, (1, 3), UNDECIDED),
        (1, (1, 1, 2, 2), ""),
        (2, (2, 1, 1, 1), MINORITY),
        (2, (2, 1, 1), UNDECIDED),
    ],
)
def test_the_majority_is_right(own, others, finding):
    assert compare(StoreHash(own, 5), hashes(*others)) == finding


def test_other_histories_are_not_compared():
    assert compare(StoreHash(1, 5), hashes(2, 3, compacted=6)) is None


def test_only_repeated_differences_are_a_finding_and_agreement_ends_it():
    check, now = StoreCheck(0.0), FIRST_S
    assert not check.is_due(now - 0.1)
    for _ in range(DIFFERENCES - 1):
        check.take(MINORITY, now)
        now += AGAIN_S
        assert (check.is_due(now), check.finding) == (True, "")
    check.take(None, now)
    assert check.finding == ""
    check.take(MINORITY, now)
    assert check.finding == MINORITY
    check.take("", now)
    assert check.finding == ""
    assert not check.is_due(now + EVERY_S - 1)
    assert check.is_due(now + EVERY_S)
