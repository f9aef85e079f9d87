"""Values as Docker's flags take them and its tables print them: text in, numbers out, and back. Pure.

Raises ValueError with Docker's words; the option that holds the value adds its name.
Source: the go-units package (sizes, durations for people), Go's time.ParseDuration and Duration.String.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([a-zA-Z]*)")
_BINARY = "kmgtp"
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


def parse_bytes(text: str) -> int:
    """`512m`, `1g`, `1.5GiB` or a plain number: bytes, with units of 1024."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid size: '{text}'")
    unit = found[2].lower()
    short = unit.removesuffix("b").removesuffix("i")
    if unit in ("", "b"):
        power = 0
    elif len(short) == 1 and short in _BINARY:
        power = _BINARY.index(short) + 1
    else:
        raise ValueError(f"invalid suffix: '{found[2]}'")
    return int(_fraction(found[1]) * 1024**power)


def parse_cpus(text: str) -> int:
    """`0.5`: a billionth of a CPU is the unit."""
    try:
        nano = _fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    if nano < 0:
        raise ValueError("must not be negative")
    return int(nano)


def parse_duration(text: str) -> int:
    """`1m30s`, `500ms`: nanoseconds. Only `0` needs no unit."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total: Fraction | int = 0
    at = 0
    while at < len(rest):
        found = _DURATION_PART.match(rest, at)
        if found is None:
            raise ValueError(f'time: invalid duration "{text}"')
        number, unit = found.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _NANOSECONDS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += _fraction(number) * _NANOSECONDS[unit]
        at = found.end()
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * int(total)


def parse_positive_duration(text: str) -> int:
    duration = parse_duration(text)
    if duration < 0:
        raise ValueError("duration cannot be negative")
    return duration


def parse_unsigned(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) >= 1 << 64:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def parse_integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def format_duration(nanoseconds: int) -> str:
    """As Go prints a duration: `5s`, `1m30s`, `500ms`, `2160h0m0s`."""
    if nanoseconds < 0:
        return "-" + format_duration(-nanoseconds)
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < _NANOSECONDS["s"]:
        for unit in ("ms", "µs", "ns"):
            if nanoseconds >= _NANOSECONDS[unit]:
                return _decimal(nanoseconds / _NANOSECONDS[unit]) + unit
    minutes, rest = divmod(nanoseconds, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(rest / _NANOSECONDS["s"]) + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _fraction(text: str) -> Fraction:
    from fractions import Fraction  # slow to import, and most commands read no number

    return Fraction(text)


def _decimal(value: float) -> str:
    text = f"{value:.9f}"
    return text.rstrip("0").rstrip(".")


def human_duration(seconds: float) -> str:
    """`Less than a second`, `12 seconds`, `About a minute`, `3 hours`, `2 years`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if whole // 60 == 1:
        return "About a minute"
    if whole // 60 < 60:
        return f"{whole // 60} minutes"
    return _human_hours(int(seconds / 3600 + 0.5))


def _human_hours(hours: int) -> str:
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def human_size(size: float, digits: int = 3) -> str:
    """Decimal units: `1.23MB`."""
    return _scaled(size, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB"), digits)


def binary_size(size: float) -> str:
    """Binary units: `3.848GiB`."""
    return _scaled(size, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def _scaled(size: float, base: float, units: tuple[str, ...], digits: int) -> str:
    at = 0
    while size >= base and at < len(units) - 1:
        size, at = size / base, at + 1
    return f"{size:.{digits}g}{units[at]}" if size < 10**digits else f"{size:.0f}{units[at]}"


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with up to nine digits of a second, as the API sends it."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if found is None:
        raise ValueError(f"invalid time {text!r}")
    micros = (found[2] or "")[:6].ljust(6, "0")
    zone = "+00:00" if found[3] == "Z" else found[3]
    return datetime.fromisoformat(f"{found[1]}.{micros}{zone}").astimezone(UTC)


def go_time(text: str) -> str:
    """An API time as Go prints one: `2026-11-21 05:53:45.644719123 +0000 UTC`."""
    parse_time(text)
    body = text.removesuffix("Z").replace("T", " ")
    return (body.rstrip("0").rstrip(".") if "." in body else body) + " +0000 UTC"


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key in which numbers count as numbers: web.2 before web.10."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def unix_time(text: str, now: datetime) -> str:
    """`--since`: an RFC 3339 time, seconds since 1970, or an age such as `10m`, as seconds for the API."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    try:
        return f"{now.timestamp() - parse_duration(text) / 1e9:.9f}"
    except ValueError:
        pass
    for suffix in ("", "Z", ":00Z", "T00:00:00Z"):
        try:
            return f"{parse_time(text + suffix).timestamp():.9f}"
        except ValueError:
            continue
    raise ValueError(f'failed to parse value as time or duration: "{text}"')
