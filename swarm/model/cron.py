"""When a scheduled job runs next: the five fields of cron, in a time zone.

In: `30 2 * * mon-fri`, a zone's name, and the time after which to look. Out: the next time, in UTC, or None.
A day matches when both the day of the month and the weekday do, or either of them if both are restricted.
Where clocks are set forward a time that is skipped runs at the moment it would have been; where they are set
back one runs once, unless the hour is `*`.
Source: crontab(5), which every user knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from swarm.base.errors import InvalidArgument

HORIZON_DAYS = 8 * 366
"""29 February may be eight years away."""

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_ITEM = re.compile(r"(?:(\*)|([a-z]{3}|\d{1,2})(?:-([a-z]{3}|\d{1,2}))?)(?:/(\d{1,2}))?")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_RANGES = (
    _Range(name="minute", first=0, last=59),
    _Range(name="hour", first=0, last=23),
    _Range(name="day of the month", first=1, last=31),
    _Range(name="month", first=1, last=12, names=_MONTHS),
    _Range(name="weekday", first=0, last=7, names=_WEEKDAYS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    is_every_hour: bool
    is_every_day: bool
    is_every_weekday: bool

    def next_after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """The first time after `moment` (aware), in UTC; None if there is none within eight years."""
        today = moment.astimezone(zone).date()
        for days in range(-1, HORIZON_DAYS):
            day = today + timedelta(days=days)
            if self._has_day(day):
                found = min((at for at in self._times(day, zone) if at > moment), default=None)
                if found is not None:
                    return found
        return None

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.is_every_day or self.is_every_weekday:
            return of_month and of_week
        return of_month or of_week

    def _times(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime.combine(day, time(hour, minute), tzinfo=zone)
                yield local.astimezone(UTC)
                if self.is_every_hour:
                    yield local.replace(fold=1).astimezone(UTC)


@lru_cache(maxsize=256)
def parse_cron(text: str) -> Cron:
    """Raises: InvalidArgument."""
    fields = MACROS.get(text.strip().lower(), text).lower().split()
    if len(fields) != len(_RANGES):
        raise InvalidArgument(
            f"invalid schedule {text!r}: expected minute, hour, day of the month, month and weekday, "
            f"or one of {', '.join(MACROS)}"
        )
    minutes, hours, days, months, weekdays = (
        _values(text, field, allowed) for field, allowed in zip(fields, _RANGES, strict=True)
    )
    return Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(day % 7 for day in weekdays),
        is_every_hour=fields[1].startswith("*"),
        is_every_day=fields[2].startswith("*"),
        is_every_weekday=fields[4].startswith("*"),
    )


def parse_zone(name: str) -> ZoneInfo:
    """Raises: InvalidArgument."""
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        pass
    raise InvalidArgument(f"unknown time zone {name!r}: expected a name such as Europe/Berlin or UTC")


def _values(text: str, field: str, allowed: _Range) -> set[int]:
    found: set[int] = set()
    for item in field.split(","):
        parsed = _ITEM.fullmatch(item)
        if parsed is None:
            raise _wrong(text, item, allowed)
        star, first, last, step = parsed.groups()
        low = allowed.first if star else _number(text, first, allowed)
        open_end = allowed.last if star or step else low
        high = _number(text, last, allowed) if last else open_end
        if low > high or (step is not None and int(step) == 0):
            raise _wrong(text, item, allowed)
        found |= set(range(low, high + 1, int(step or 1)))
    return found


def _number(text: str, word: str, allowed: _Range) -> int:
    if word in allowed.names:
        return allowed.names.index(word) + allowed.first
    if word.isdecimal() and allowed.first <= int(word) <= allowed.last:
        return int(word)
    raise _wrong(text, word, allowed)


def _wrong(text: str, item: str, allowed: _Range) -> InvalidArgument:
    return InvalidArgument(
        f"invalid schedule {text!r}: {item!r} is no {allowed.name} ({allowed.first}-{allowed.last})"
    )
