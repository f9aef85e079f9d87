"""What a YAML text means before anyone asks for types: texts, lists and maps, each with its place.

Invariant: `weight` and `depth` count a node with everything below it, aliases expanded; they are known when
the node is made, so a bomb of aliases is refused before anything walks it. Source: YAML 1.2.2, core schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from swarm.base.errors import InvalidArgument
from swarm.stack.project import Place

MAX_WEIGHT = 50_000
"""Nodes of a document, aliases expanded; a long text counts as several."""
MAX_DEPTH = 50
_TEXT_PER_NODE = 100
_LONGEST = 400
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    text: str
    place: Place
    is_plain: bool = False
    """Without quotes: it may be a number, a truth value or nothing."""
    tag: str = ""
    """`!reset`, `!override` or nothing, here and in the two below."""

    @property
    def weight(self) -> int:
        return 1 + len(self.text) // _TEXT_PER_NODE

    @property
    def depth(self) -> int:
        return 1

    @property
    def is_null(self) -> bool:
        return self.is_plain and _NULL.fullmatch(self.text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    items: tuple[Node, ...]
    place: Place
    weight: int
    depth: int
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    items: tuple[tuple[Scalar, Node], ...]
    place: Place
    weight: int
    depth: int
    tag: str = ""

    def get(self, key: str) -> Node | None:
        return next((value for name, value in self.items if name.text == key), None)


Node: TypeAlias = Scalar | Sequence | Map


def wrong(place: Place, text: str) -> InvalidArgument:
    """The one shape of a loader's error: the place, then a sentence; one line, whatever it quotes."""
    line = _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
    return InvalidArgument(f"{place}: {line if len(line) <= _LONGEST else line[: _LONGEST - 3] + '...'}")


def make_sequence(items: Iterable[Node], place: Place, tag: str = "") -> Sequence:
    found = tuple(items)
    weight, depth = _measure(found, place)
    return Sequence(items=found, place=place, weight=weight, depth=depth, tag=tag)


def make_map(items: Iterable[tuple[Scalar, Node]], place: Place, tag: str = "") -> Map:
    found = tuple(items)
    weight, depth = _measure((value for _, value in found), place)
    return Map(items=found, place=place, weight=weight + len(found), depth=depth, tag=tag)


def _measure(items: Iterable[Node], place: Place) -> tuple[int, int]:
    weight, depth = 1, 0
    for item in items:
        weight += item.weight
        depth = max(depth, item.depth)
    if weight > MAX_WEIGHT:
        raise wrong(place, f"too large: more than {MAX_WEIGHT} values once its aliases are expanded")
    if depth >= MAX_DEPTH:
        raise wrong(place, f"nested too deeply: more than {MAX_DEPTH} levels")
    return weight, depth + 1


def value_of(node: Scalar) -> str | int | float | bool | None:
    """What the text stands for by YAML 1.2: `no` is a text, `22:22` is one, and `012` is twelve."""
    text = node.text
    if not node.is_plain:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text) and len(text) < 100:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf"))
    return text


def plain_of(node: Node) -> object:
    """The node as dicts, lists and values, for what is handed through unread (`x-` keys)."""
    match node:
        case Scalar():
            return value_of(node)
        case Sequence():
            return [plain_of(item) for item in node.items]
        case Map():
            return {key.text: plain_of(value) for key, value in node.items}
