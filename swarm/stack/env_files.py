"""`.env` and `env_file:` in, variables out. Pure; ValueError names the line.

Two formats: Docker's own (`raw`: `KEY=value`, the rest of the line as it is) and the Compose Specification's,
with quotes, comments, `export` and variables in the values.
Source: Compose Specification, chapter .env file syntax.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping

from swarm.stack.interpolate import expand

MAX_VARIABLES = 10_000
_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=:#'\"]+)[ \t]*(?:([=:])[ \t]*)?")
_QUOTED = {"'": re.compile(r"'([^']*)'"), '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)}
_REST = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$", "\n": ""}


def read_raw(text: str) -> dict[str, str | None]:
    """A bare `KEY` is None: the client's value, if it has one."""
    found: dict[str, str | None] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not key or any(character.isspace() for character in key):
            raise ValueError(f"line {number}: variable '{key}' contains whitespaces or has no name")
        found[key] = value if equals else None
    return _bounded(found)


def read_env(text: str, variables: Mapping[str, str]) -> dict[str, str | None]:
    """`variables` are those that values may name, with the ones of the lines above."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str | None] = {}
    above: dict[str, str] = {}
    known = ChainMap(above, dict(variables))
    at = 0
    while at < len(text):
        blank = _REST.match(text, at)
        if blank is not None:
            at = blank.end()
            continue
        key = _LINE.match(text, at)
        if key is None:
            raise ValueError(f"line {_line(text, at)}: expected KEY=value")
        try:
            value, end = _value(text, key.end(), known) if key[2] else (None, key.end())
        except ValueError as error:
            raise ValueError(f"line {_line(text, at)}: {error}") from None
        rest = _REST.match(text, end)
        if rest is None:
            raise ValueError(f"line {_line(text, at)}: unexpected text after the value of {key[1]}")
        at = rest.end()
        found[key[1]] = value
        if value is not None:
            above[key[1]] = value
        _bounded(found)
    return found


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _value(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    quote = text[at : at + 1]
    if quote in _QUOTED and quote:
        found = _QUOTED[quote].match(text, at)
        if found is None:
            raise ValueError(f"the text that begins with {quote} is never closed")
        if quote == "'":
            return found[1], found.end()
        escaped = _ESCAPE.sub(lambda each: _ESCAPES.get(each[1], each[0]), found[1])
        return expand(escaped, variables, lambda name: None), found.end()
    end = text.find("\n", at)
    line = text[at : end if end >= 0 else len(text)]
    plain = re.split(r"(?:^|(?<=[ \t]))#", line, maxsplit=1)[0].rstrip()
    return expand(plain, variables, lambda name: None), at + len(line)


def _bounded(found: dict[str, str | None]) -> dict[str, str | None]:
    if len(found) > MAX_VARIABLES:
        raise ValueError(f"more than {MAX_VARIABLES} variables")
    return found
