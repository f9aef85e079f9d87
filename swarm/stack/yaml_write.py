"""Dicts, lists and values out as YAML 1.2 text, in block style with sorted keys. Pure.

Invariant: `plain_of(parse_yaml(write_yaml(x))) == x` for texts, numbers, truth values, None, and dicts and
lists of them, and a YAML 1.1 reader (Docker's) reads the same: what either could take for more than a text is
quoted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_SAFE = re.compile(r"[\w/.~$][\w/.@+=,$~-]*(?: [\w/.@+=,$~-]+)*|[A-Za-z_][\w./-]*:[\w./-]+", re.ASCII)
_WORDS = re.compile(
    r"(?i)~|null|true|false|yes|no|on|off|y|n|[-+]?[.](?:inf|nan)|0[xob][0-9a-f_]*|[-+.]?[0-9][0-9_.e+-]*"
)
_FIRST = ("version", "name", "services", "networks", "volumes", "secrets", "configs")


def write_yaml(value: dict[str, Any]) -> str:
    """Sections in the order that people write them; the keys of others by name."""
    order = sorted(value, key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))
    text = "\n".join(line for key in order for line in _entry(key, value[key], ""))
    return text + "\n" if text else "{}\n"


def _entry(key: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield f"{indent}{_scalar(key)}:"
        for inner in sorted(value):
            yield from _entry(inner, value[inner], indent + "  ")
    elif isinstance(value, list) and value:
        yield f"{indent}{_scalar(key)}:"
        for item in value:
            yield from _item(item, indent + "  ")
    else:
        yield f"{indent}{_scalar(key)}: {_scalar(value)}"


def _item(value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        lines = (
            [line for key in sorted(value) for line in _entry(key, value[key], indent + "  ")]
            if isinstance(value, dict)
            else [line for item in value for line in _item(item, indent + "  ")]
        )
        yield f"{indent}- {lines[0].lstrip(' ')}"
        yield from lines[1:]
    else:
        yield f"{indent}- {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, str):
        is_plain = _SAFE.fullmatch(value) and not _WORDS.fullmatch(value)
        return value if is_plain else _quoted(value)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def _quoted(value: str) -> str:
    """JSON's quotes are YAML's, but for characters beyond 16 bits, which JSON writes in two halves."""
    return re.sub(
        r"[\x7f-\x9f\ufffe\uffff\ufeff]",
        lambda c: f"\\u{ord(c[0]):04x}",
        json.dumps(value, ensure_ascii=False),
    )
