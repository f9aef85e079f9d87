"""Readers of compose values: a node in, the one form in which the loader holds it out. Pure.

The forms are those that `stack config` prints: durations as Go writes them (`1m30s`), sizes in bytes as text,
lists where a key takes one text or several, maps where it takes a map or a list of `KEY=value`.

Invariant: a wrong value is refused with `file:line:column: path: why`, and a key that has no effect leaves a
notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from swarm.base.errors import InvalidArgument
from swarm.model.quantities import format_duration, parse_bytes, parse_cpus, parse_duration
from swarm.stack.command_words import split_command
from swarm.stack.project import Notice, Place
from swarm.stack.yaml_nodes import Map, Node, Scalar, Sequence, value_of, wrong

Path: TypeAlias = tuple[str, ...]
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a reader stands, and where it leaves what it found on the way."""

    directory: str
    """Absolute; relative paths of the file begin here."""
    home: str = ""
    """What `~` stands for; empty if it is not known."""
    is_legacy: bool = False
    """The file has `version:`, so it is read as `docker stack` reads it."""
    path: Path = ()
    notices: list[Notice] = field(default_factory=list)
    places: dict[Path, Place] = field(default_factory=dict)
    """Of every value that was read."""
    tags: dict[Path, str] = field(default_factory=dict)
    """`!reset` and `!override` of this file."""

    def at(self, key: str, node: Node) -> Scope:
        path = (*self.path, key)
        self.places[path] = node.place
        if node.tag:
            self.tags[path] = node.tag
        return replace(self, path=path)

    def wrong(self, node: Node, text: str) -> InvalidArgument:
        return wrong(node.place, f"{dotted(self.path)}: {text}" if self.path else text)

    def notice(self, place: Place, text: str) -> None:
        self.notices.append(Notice(place=place, text=f"{dotted(self.path)} {text}"))


Reader: TypeAlias = Callable[[Node, Scope], Any]


def dotted(path: Path) -> str:
    """`services.web.ports[0]`."""
    return ".".join(key if len(key) <= 60 else key[:57] + "..." for key in path).replace(".[", "[")


def kind_of(node: Node) -> str:
    match node:
        case Map():
            return "a map"
        case Sequence():
            return "a list"
        case _ if node.is_null:
            return "nothing"
    value = value_of(node)
    if isinstance(value, bool):
        return "a truth value"
    return "a text" if isinstance(value, str) else "a number"


# --- single values --------------------------------------------------------------------------------------


def text(node: Node, scope: Scope) -> str:
    if not isinstance(node, Scalar) or node.is_null:
        raise scope.wrong(node, f"expected a text, got {kind_of(node)}")
    if "\0" in node.text:
        raise scope.wrong(node, "a text must not contain NUL")
    return node.text


def boolean(node: Node, scope: Scope) -> bool:
    if not isinstance(node, Scalar) or node.text.lower() not in ("true", "false"):
        shown = repr(node.text) if isinstance(node, Scalar) else kind_of(node)
        raise scope.wrong(node, f"expected true or false, got {shown}")
    return node.text.lower() == "true"


def integer(low: int, high: int) -> Reader:
    def read(node: Node, scope: Scope) -> int:
        if not isinstance(node, Scalar) or not _INTEGER.fullmatch(node.text):
            shown = repr(node.text) if isinstance(node, Scalar) else kind_of(node)
            raise scope.wrong(node, f"expected a whole number, got {shown}")
        if not low <= int(node.text) <= high:
            raise scope.wrong(node, f"{node.text} is out of range: it is a number from {low} to {high}")
        return int(node.text)

    return read


def ratio(node: Node, scope: Scope) -> float:
    try:
        found = float(text(node, scope))
    except ValueError:
        raise scope.wrong(node, "expected a number from 0 to 1") from None
    if not 0 <= found <= 1:
        raise scope.wrong(node, f"{found:g} is out of range: it is a number from 0 to 1")
    return found


def duration(node: Node, scope: Scope) -> str:
    written = text(node, scope)
    try:
        if len(written) > 100:
            raise ValueError("the duration is too long a text")
        found = parse_duration(written)
    except ValueError as error:
        raise scope.wrong(node, f"{error} (write 10s, 1m30s or 500ms)") from None
    if not 0 <= found < 2**63:
        raise scope.wrong(node, f'invalid duration "{written}": it is 0 or more, and at most 292 years')
    return format_duration(found)


def size(node: Node, scope: Scope) -> str:
    """Bytes, as text. `-1` is not a size."""
    try:
        found = parse_bytes(text(node, scope))
    except ValueError as error:
        raise scope.wrong(node, f"{error} (write 512m, 1g or 1.5GiB)") from None
    if found >= 2**63:
        raise scope.wrong(node, "the size is out of range")
    return str(found)


def cpus(node: Node, scope: Scope) -> str:
    written = text(node, scope)
    try:
        if parse_cpus(written) >= 2**63:
            raise ValueError("out of range")
    except ValueError as error:
        raise scope.wrong(node, f"invalid number of CPUs '{written}': {error} (write 0.5)") from None
    return written


def choice(*words: str) -> Reader:
    def read(node: Node, scope: Scope) -> str:
        found = text(node, scope)
        if found not in words:
            raise scope.wrong(node, f"invalid value '{found}': choose {' or '.join(words)}")
        return found

    return read


def mode(node: Node, scope: Scope) -> int:
    """File permissions: octal when they begin with 0 (or 0o), as everyone means them."""
    written = text(node, scope)
    if not re.fullmatch(r"0|0o?[0-7]{1,4}|[1-9][0-9]{0,3}", written):
        raise scope.wrong(node, f"invalid file mode '{written}' (write 0440)")
    found = int(written.replace("o", ""), 8) if written.startswith("0") else int(written)
    if found > 0o7777:
        raise scope.wrong(node, f"invalid file mode '{written}': at most 07777")
    return found


# --- lists and maps -------------------------------------------------------------------------------------


def items_of(read: Reader, *, is_text_allowed: bool = False) -> Reader:
    """A list; `is_text_allowed`: one value without the list will do."""

    def read_items(node: Node, scope: Scope) -> list[Any]:
        if isinstance(node, Scalar) and is_text_allowed and not node.is_null:
            return [read(node, scope)]
        if not isinstance(node, Sequence):
            raise scope.wrong(node, f"expected a list, got {kind_of(node)}")
        return [read(item, scope.at(f"[{index}]", item)) for index, item in enumerate(node.items)]

    return read_items


texts = items_of(text)
text_or_texts = items_of(text, is_text_allowed=True)


def entries_of(read: Reader, *, is_null_allowed: bool = False) -> Reader:
    """A map with keys of the user's; `is_null_allowed`: `key:` alone is an empty map."""

    def read_entries(node: Node, scope: Scope) -> dict[str, Any]:
        if not isinstance(node, Map):
            raise scope.wrong(node, f"expected a map, got {kind_of(node)}")
        found = {}
        for key, value in node.items:
            inner = scope.at(key.text, value)
            is_null = isinstance(value, Scalar) and value.is_null
            scope.places[inner.path] = key.place if is_null else value.place
            found[key.text] = {} if is_null and is_null_allowed else read(value, inner)
        return found

    return read_entries


def pairs(node: Node, scope: Scope) -> dict[str, str | None]:
    """A map, or a list of `KEY=value`; None where there is no value."""
    if isinstance(node, Map):
        for key, value in node.items:
            if not isinstance(value, Scalar):
                raise scope.at(key.text, value).wrong(value, f"expected a text, got {kind_of(value)}")
        found = {key.text: _pair(value) for key, value in node.items}
    elif isinstance(node, Sequence):
        split = [text(item, scope.at(f"[{at}]", item)).partition("=") for at, item in enumerate(node.items)]
        found = {key: value if equals else None for key, equals, value in split}
    else:
        raise scope.wrong(node, f"expected a map or a list of KEY=value, got {kind_of(node)}")
    for name, pair in found.items():
        if not name or "\0" in name + (pair or ""):
            raise scope.wrong(node, f"invalid entry '{name}={pair or ''}': it needs a name, and holds no NUL")
    return found


def _pair(node: Node) -> str | None:
    return None if not isinstance(node, Scalar) or node.is_null else node.text


def labels(node: Node, scope: Scope) -> dict[str, str]:
    return {key: value or "" for key, value in pairs(node, scope).items()}


def command(node: Node, scope: Scope) -> list[str]:
    """A list, or a line that is split into words."""
    if isinstance(node, Scalar):
        try:
            return split_command(text(node, scope))
        except ValueError as error:
            raise scope.wrong(node, str(error)) from None
    found: list[str] = texts(node, scope)
    return found


def fields(table: Mapping[str, Reader], unhonoured: Mapping[str, str] | None = None) -> Reader:
    """A map with these keys. Others that compose has leave a notice with why; unknown ones are refused."""
    ignored = unhonoured or {}

    def read_fields(node: Node, scope: Scope) -> dict[str, Any]:
        if not isinstance(node, Map):
            raise scope.wrong(node, f"expected a map, got {kind_of(node)}")
        found = {}
        for key, value in node.items:
            inner = scope.at(key.text, value)
            if key.text in ignored:
                inner.notice(key.place, f"is ignored: {ignored[key.text]}")
            elif key.text in table:
                if not (isinstance(value, Scalar) and value.is_null):
                    found[key.text] = table[key.text](value, inner)
            elif not key.text.startswith("x-"):
                raise scope.wrong(key, unknown(key.text, (*table, *ignored)))
        return found

    return read_fields


def unknown(key: str, known: tuple[str, ...]) -> str:
    import difflib  # only mistakes need it

    near = difflib.get_close_matches(key[:100], known, n=1, cutoff=0.6)
    return f"unknown key '{key[:100]}'" + (f": did you mean '{near[0]}'?" if near else "")
