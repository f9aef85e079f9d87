"""Values as Docker's flags take them and its tables print them: text in, numbers out, and back. Pure.

Raises ValueError with Docker's words; the option that holds the value adds its name.
Source: the go-units package (durations for people).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from swarm.model.quantities import format_duration as format_duration
from swarm.model.quantities import parse_bytes as parse_bytes
from swarm.model.quantities import parse_cpus as parse_cpus
from swarm.model.quantities import parse_duration as parse_duration


def comma_fields(text: str) -> list[str]:
    """`a=b,"c=d,e"` as one line of CSV."""
    import csv  # few flags need it

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"fields are separated by commas, and quoted whole or not at all: {error}") from None


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
