"""The `filters` query parameter: JSON text in, allowed keys with their values out.

Both spellings are read: `{"name": {"web": true}}`, which Go clients send, and `{"name": ["web"]}`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from swarm.base.errors import InvalidArgument

Filters = Mapping[str, tuple[str, ...]]


def parse_filters(text: str, allowed: Collection[str]) -> Filters:
    """Raises InvalidArgument for a key that is not in `allowed` and for text that is no filter."""
    if not text:
        return {}
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidArgument("invalid filters: not valid JSON") from None
    if not isinstance(raw, dict):
        raise InvalidArgument("invalid filters: expected a JSON object")
    found: dict[str, tuple[str, ...]] = {}
    for key, values in raw.items():
        if key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'")
        chosen = [v for v, on in values.items() if on] if isinstance(values, dict) else values
        if not isinstance(chosen, list) or not all(isinstance(v, str | bool) for v in chosen):
            raise InvalidArgument(f"invalid filter '{key}': expected a list of texts")
        found[key] = tuple(str(v).lower() if isinstance(v, bool) else v for v in chosen)
    return found


def has_prefix(wanted: tuple[str, ...] | None, value: str) -> bool:
    """Nothing wanted, or one of them begins `value`."""
    return not wanted or any(value.startswith(w) for w in wanted)


def is_one_of(wanted: tuple[str, ...] | None, value: str) -> bool:
    return not wanted or value in wanted


def contains_one_of(wanted: tuple[str, ...] | None, value: str) -> bool:
    return not wanted or any(w in value for w in wanted)


def has_labels(wanted: tuple[str, ...] | None, labels: Mapping[str, str]) -> bool:
    """Every wanted `key` is there, every wanted `key=value` has that value."""
    for text in wanted or ():
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
