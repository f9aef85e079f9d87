"""Sizes, CPUs and durations as flags and compose files write them: text in, numbers out, and back. Pure.

Raises ValueError with Docker's words; who holds the value adds its name.
Source: the go-units package (sizes), Go's time.ParseDuration and Duration.String.
"""

from __future__ import annotations

import re
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
