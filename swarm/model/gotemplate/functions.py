"""The functions a template may call. Arguments in, a value out, or ValueError with Go's words.

`and` and `or` are not here: they evaluate their arguments one by one, which only the executor can do.
Source: Go's text/template builtins; the Docker command's json, join, lower, upper, title, split, pad and
truncate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swarm.model.gotemplate.values import is_list, show, sprint, sprintf, to_json, truth, type_name

_MAX_PAD = 1000


@dataclass(frozen=True, slots=True)
class Builtin:
    """`most` is None when any number of arguments goes."""

    call: Callable[..., object]
    least: int
    most: int | None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"wrong type for value; expected int; got {type_name(value)}")
    return value


def _join(values: object, separator: object) -> str:
    if values is None:
        return ""
    if not is_list(values) or not isinstance(values, Sequence):
        raise ValueError(f"wrong type for value; expected []string; got {type_name(values)}")
    return _text(separator).join(show(value, nested=True) for value in values)


def _title(value: object) -> str:
    return re.sub(r"(?<![\w])[^\W\d_]", lambda found: found.group().upper(), _text(value))


def _pad(value: object, before: object, after: object) -> str:
    widths = [min(max(_number(width), 0), _MAX_PAD) for width in (before, after)]
    return " " * widths[0] + _text(value) + " " * widths[1]


def _truncate(value: object, limit: object) -> str:
    return _text(value)[: max(_number(limit), 0)]


def _split(value: object, separator: object) -> list[str]:
    text, by = _text(value), _text(separator)
    return text.split(by) if by else list(text)


def _len(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise ValueError("len of nil pointer" if value is None else f"len of type {type_name(value)}")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        value = _index_once(value, key)
    return value


def _index_once(value: object, key: object) -> object:
    if value is None:
        raise ValueError("index of untyped nil")
    if isinstance(value, Mapping):
        # A map of strings holds "" for what it does not have, as Go's zero value.
        empty = "" if all(isinstance(item, str) for item in value.values()) else None
        return value.get(_text(key), empty)
    if isinstance(value, Sequence):
        at = _number(key)
        if not 0 <= at < len(value):
            raise ValueError(f"index out of range: {at}")
        return ord(value[at]) if isinstance(value, str) else value[at]
    raise ValueError(f"can't index item of type {type_name(value)}")


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, Sequence):
        raise ValueError(f"can't slice item of type {type_name(value)}")
    numbers = [_number(bound) for bound in bounds]
    start = numbers[0] if numbers else 0
    end = numbers[1] if len(numbers) > 1 else len(value)
    for number in numbers:
        if not 0 <= number <= len(value):
            raise ValueError(f"index out of range: {number}")
    if start > end:
        raise ValueError(f"invalid slice index: {start} > {end}")
    return value[start:end]


def _comparable(value: object) -> str:
    """The kind within which values compare."""
    return "nil" if value is None else type_name(value)


def _eq(first: object, *others: object) -> bool:
    for other in others:
        kinds = {_comparable(first), _comparable(other)}
        if isinstance(first, Mapping) or is_list(first) or isinstance(other, Mapping) or is_list(other):
            raise ValueError(f"non-comparable type {show(first)}: {type_name(first)}")
        if len(kinds) > 1 and "nil" not in kinds:
            raise ValueError("incompatible types for comparison")
        if first == other:
            return True
    return False


def _lt(first: object, second: object) -> bool:
    for value in (first, second):
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ValueError("invalid type for comparison")
    if _comparable(first) != _comparable(second):
        raise ValueError("incompatible types for comparison")
    return first < second  # type: ignore[no-any-return, operator]  # both are int, float or str by now


def _html(*values: object) -> str:
    names = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;", "\0": "\ufffd"}
    return "".join(names.get(character, character) for character in sprint(values))


def _urlquery(*values: object) -> str:
    from urllib.parse import quote_plus

    return quote_plus(sprint(values), safe="")


FUNCTIONS: Mapping[str, Builtin] = {
    "json": Builtin(to_json, 1, 1),
    "join": Builtin(_join, 2, 2),
    "lower": Builtin(lambda value: _text(value).lower(), 1, 1),
    "upper": Builtin(lambda value: _text(value).upper(), 1, 1),
    "title": Builtin(_title, 1, 1),
    "split": Builtin(_split, 2, 2),
    "pad": Builtin(_pad, 3, 3),
    "truncate": Builtin(_truncate, 2, 2),
    "print": Builtin(lambda *values: sprint(values), 0, None),
    "println": Builtin(lambda *values: " ".join(show(v, nested=True) for v in values) + "\n", 0, None),
    "printf": Builtin(lambda pattern, *values: sprintf(_text(pattern), values), 1, None),
    "len": Builtin(_len, 1, 1),
    "index": Builtin(_index, 1, None),
    "slice": Builtin(_slice, 1, 3),
    "not": Builtin(lambda value: not truth(value), 1, 1),
    "eq": Builtin(_eq, 2, None),
    "ne": Builtin(lambda first, second: not _eq(first, second), 2, 2),
    "lt": Builtin(_lt, 2, 2),
    "le": Builtin(lambda first, second: _lt(first, second) or _eq(first, second), 2, 2),
    "gt": Builtin(lambda first, second: not (_lt(first, second) or _eq(first, second)), 2, 2),
    "ge": Builtin(lambda first, second: not _lt(first, second), 2, 2),
    "html": Builtin(_html, 0, None),
    "urlquery": Builtin(_urlquery, 0, None),
}
