"""When scheduled jobs run."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.base.errors import InvalidArgument
from swarm.model.cron import parse_cron, parse_zone

BERLIN = ZoneInfo("Europe/Berlin")


def next_run(text, after, zone=UTC):
    found = parse_cron(text).next_after(after, ZoneInfo("UTC") if zone is UTC else zone)
    return found and found.isoformat(timespec="minutes").removesuffix("+00:00")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", "2026-11-21T12:31"),
        ("*/15 * * * *", "2026-11-21T12:45"),
        ("0 0 * * *", "2026-11-22T00:00"),
        ("@daily", "2026-11-22T00:00"),
        ("@hourly", "2026-11-21T13:00"),
        ("30 12 * * *", "2026-11-22T12:30"),
        ("0 9-17/4 * * mon-fri", "2026-11-23T09:00"),
        ("0 0 1 * *", "2026-12-01T00:00"),
        ("0 0 1 * sun", "2026-11-22T00:00"),
        ("0 0 * * 7", "2026-11-22T00:00"),
        ("0 0 1 jan,jul *", "2027-01-01T00:00"),
        ("5/20 12 * * *", "2026-11-21T12:45"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 0 30 2 *", None),
    ],
)
def test_next(text, expected):
    assert next_run(text, datetime(2026, 11, 21, 12, 30, tzinfo=UTC)) == expected


def test_a_time_that_is_skipped_runs_when_it_would_have_been():
    assert next_run("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC), BERLIN) == "2026-03-29T01:30"


def test_a_time_that_comes_twice_runs_once():
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_run("30 2 * * *", first - timedelta(hours=1), BERLIN) == "2026-10-25T00:30"
    assert next_run("30 2 * * *", first, BERLIN) == "2026-10-26T01:30"


def test_every_hour_is_every_hour_also_then():
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_run("30 * * * *", first, BERLIN) == "2026-10-25T01:30"


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *"),
        *("5-1 * * * *", "a * * * *", "* * * foo *", "@never", "1,,2 * * * *", "-1 * * * *"),
    ],
)
def test_refused(text):
    with pytest.raises(InvalidArgument, match="invalid schedule"):
        parse_cron(text)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe"])
def test_unknown_zone(name):
    with pytest.raises(InvalidArgument, match="unknown time zone"):
        parse_zone(name)


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 59),
    st.integers(0, 23),
)
def test_daily_runs_come_in_order_a_day_apart(moment, minute, hour):
    cron = parse_cron(f"{minute} {hour} * * *")
    first = cron.next_after(moment, BERLIN)
    second = cron.next_after(first, BERLIN)
    assert moment < first <= moment + timedelta(hours=25)
    assert timedelta(hours=23) <= second - first <= timedelta(hours=25)
