"""Values as flags take them and as tables print them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from swarm.cli import values


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("64", 64),
        ("10kB", 10240),
        ("7 MB", 7 << 20),
    ],
)
def test_parses_sizes_with_units_of_1024(text: str, size: int) -> None:
    assert values.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "message"), [("5x", "invalid suffix: 'x'"), ("m", "invalid size"), ("-1", "size")]
)
def test_refuses_sizes(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values.parse_bytes(text)


def test_parses_cpus_exactly() -> None:
    assert values.parse_cpus("0.5") == 500_000_000
    assert values.parse_cpus("2") == 2_000_000_000
    for text, message in (("abc", "rational"), ("0.0000000001", "too precise"), ("-1", "negative")):
        with pytest.raises(ValueError, match=message):
            values.parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds", "shown"),
    [
        ("1m30s", 90_000_000_000, "1m30s"),
        ("500ms", 500_000_000, "500ms"),
        ("1.5h", 5_400_000_000_000, "1h30m0s"),
        ("0", 0, "0s"),
        ("2160h", 7_776_000_000_000_000, "2160h0m0s"),
        ("1.5s", 1_500_000_000, "1.5s"),
        ("250us", 250_000, "250µs"),
    ],
)
def test_durations_read_and_print_as_in_go(text: str, nanoseconds: int, shown: str) -> None:
    assert values.parse_duration(text) == nanoseconds
    assert values.format_duration(nanoseconds) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [("5", "missing unit"), ("1x", 'unknown unit "x"'), ("", "invalid"), ("s", "invalid")],
)
def test_refuses_durations(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (65, "About a minute"),
        (600, "10 minutes"),
        (3700, "About an hour"),
        (5400, "2 hours"),
        (86_400 * 3, "3 days"),
        (86_400 * 21, "3 weeks"),
        (86_400 * 90, "3 months"),
        (86_400 * 800, "2 years"),
    ],
)
def test_ages_for_people(seconds: float, text: str) -> None:
    assert values.human_duration(seconds) == text


def test_sizes_for_people() -> None:
    assert values.human_size(1_234_567) == "1.23MB"
    assert values.human_size(0) == "0B"
    assert values.binary_size(4_131_299_328) == "3.848GiB"
    assert values.binary_size(134_217_728) == "128MiB"


def test_since_takes_ages_and_times() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert float(values.unix_time("10m", now)) == now.timestamp() - 600
    assert float(values.unix_time("2026-01-02T00:00:00Z", now)) == now.timestamp()
    assert float(values.unix_time("2026-01-02", now)) == now.timestamp()
    assert values.unix_time("1700000000.5", now) == "1700000000.5"
    with pytest.raises(ValueError, match="failed to parse"):
        values.unix_time("soon", now)
