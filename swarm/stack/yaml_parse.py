"""YAML 1.2 in, nodes with places out. Pure.

All of YAML that people write by hand: block and flow collections, every kind of text, comments, anchors,
aliases, merge keys. Refused with a clear line: a key twice, keys that are not texts, tabs as indentation, a
list item or a key inside a plain text, several documents, and every tag but those of the core schema and
compose's `!reset` and `!override`.

Invariant: time and memory grow with the length of the text (at most MAX_LENGTH); aliases are shared.
Why our own: PyYAML reads YAML 1.1 (`no`, `22:22`, `0o17`), lets keys repeat and forgets where a value stood.
Source: YAML 1.2.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from swarm.base.errors import InvalidArgument
from swarm.stack.project import Place
from swarm.stack.yaml_cursor import MARKER, Cursor
from swarm.stack.yaml_nodes import (
    MAX_DEPTH,
    MAX_WEIGHT,
    Map,
    Node,
    Scalar,
    Sequence,
    make_map,
    make_sequence,
    wrong,
)
from swarm.stack.yaml_texts import (
    PLAIN,
    QUOTED,
    key_end,
    read_block_text,
    read_plain,
    read_plain_line,
    read_quoted,
    short,
)

MAX_LENGTH = 1024 * 1024

_NAME = re.compile(r"[^\s,\[\]{}]+")
_TAGS = {"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq", "!reset", "!override", "!"}
_CONTROL = re.compile(r"[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse_yaml(text: str, file: str) -> Node:
    """The one document of `text`. Raises: InvalidArgument, which begins with `file:line:column`."""
    start = Place(file=file, line=1, column=1)
    if len(text) > MAX_LENGTH:
        raise wrong(start, f"the file is too large: at most {MAX_LENGTH} characters")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    cursor = Cursor(text, file)
    bad = _CONTROL.search(text)
    if bad is not None:
        raise cursor.error(f"control character {bad[0]!r}: this is no text file", bad.start())
    return _Parser(cursor).document()


class _Parser:
    """Block structure is by columns, which count from 0 here."""

    def __init__(self, cursor: Cursor) -> None:
        self._here = cursor
        self._depth = 0
        self._count = 0
        self._anchors: dict[str, Node] = {}

    # --- the document -----------------------------------------------------------------------------------

    def document(self) -> Node:
        self._here.to_content()
        while self._here.peek() == "%" and self._here.column() == 0:
            self._directive()
        if MARKER.match(self._here.text, self._here.at) and self._here.text.startswith("---", self._here.at):
            self._here.at += 3
        node = self._node(-1)
        self._here.to_content()
        if self._here.text.startswith("...", self._here.at) and self._here.is_end():
            self._here.at += 3
            self._here.to_content()
        if self._here.at < len(self._here.text):
            if MARKER.match(self._here.text, self._here.at):
                raise self._here.error("a second document begins here: a compose file is one document")
            raise self._bad_indent()
        return node

    def _directive(self) -> None:
        line = self._here.rest_of_line()
        if not re.fullmatch(r"%YAML[ \t]+1\.[0-9][ \t]*(#.*)?", line):
            raise self._here.error(f"directive {line.split()[0]} is not supported")
        self._here.at += len(line)
        self._here.to_content()

    def _bad_indent(self) -> InvalidArgument:
        return self._here.error("wrong indentation: this line begins at no column of the lines above it")

    # --- block ------------------------------------------------------------------------------------------

    def _node(self, indent: int, *, is_value: bool = False) -> Node:
        """The node that begins here, or on a later line right of `indent`; nothing there is null.

        `is_value`: it follows `key:`, so a list may begin below the key, and no key may follow on this line.
        """
        start, is_fresh = self._here.at, self._here.is_line_over()
        null = Scalar(text="", place=self._here.place(), is_plain=True)
        self._here.to_content()
        if not self._is_inside(indent, is_value=is_value, is_fresh=is_fresh):
            self._here.at = start
            return null
        if self._here.peek() not in ("&", "!"):
            return self._content(indent, is_compact=is_fresh or not is_value)
        anchor, tag = self._properties()
        if not self._here.is_line_over():
            return self._named(self._content(indent, is_compact=False), anchor, tag)
        self._here.to_content()
        if not self._is_inside(indent, is_value=is_value, is_fresh=True):
            return self._named(null, anchor, tag)
        return self._named(self._content(indent, is_compact=True), anchor, tag)

    def _is_inside(self, indent: int, *, is_value: bool, is_fresh: bool) -> bool:
        if self._here.is_end():
            return False
        column = self._here.column()
        return not is_fresh or column > indent or (is_value and column == indent and self._here.is_dash())

    def _properties(self) -> tuple[str, str]:
        anchor, tag = "", ""
        while self._here.peek() in ("&", "!"):
            start = self._here.at
            found = _NAME.match(self._here.text, self._here.at)
            word = found[0] if found else ""
            self._here.at += len(word)
            if word.startswith("&"):
                anchor = word[1:]
            elif word in _TAGS:
                tag = word
            else:
                raise self._here.error(f"tag {word} is not supported: leave it out", start)
            self._here.skip_space()
        return anchor, tag

    def _named(self, node: Node, anchor: str, tag: str) -> Node:
        if tag in ("!reset", "!override"):
            node = replace(node, tag=tag)
        elif tag in ("!!str", "!") and isinstance(node, Scalar):
            node = replace(node, is_plain=False)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _content(self, indent: int, *, is_compact: bool) -> Node:
        if self._here.is_dash():
            if not is_compact:
                raise self._here.error("a list begins on a line of its own")
            return self._nested(self._block_sequence)
        if self._here.peek() == "?" and self._here.text[self._here.at + 1 : self._here.at + 2] in (
            " ",
            "\n",
            "",
        ):
            raise self._here.error("keys that begin with '?' are not supported: write 'key: value'")
        if self._here.peek() in ("|", ">"):
            return read_block_text(self._here, indent)
        if key_end(self._here) is not None:
            if not is_compact:
                raise self._here.error(
                    "a key and value cannot stand here: begin a new line, or quote the text"
                )
            return self._nested(self._block_map)
        node = self._flow_node(indent)
        if not self._here.is_line_over():
            rest = self._here.rest_of_line().strip()
            raise self._here.error(f"unexpected {short(rest)} after the value: quote the whole text")
        return node

    def _nested(self, read: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._here.error(f"nested too deeply: more than {MAX_DEPTH} levels")
        node = read()
        self._depth -= 1
        return node

    def _block_sequence(self) -> Node:
        column, place, items = self._here.column(), self._here.place(), []
        while True:
            self._here.at += 1
            self._here.skip_space()
            items.append(self._node(column))
            self._here.to_content()
            if not self._is_next(column) or not self._here.is_dash():
                return make_sequence(items, place)

    def _block_map(self) -> Node:
        column, place = self._here.column(), self._here.place()
        items: list[tuple[Scalar, Node]] = []
        while True:
            key = self._block_key()
            items.append((key, self._node(column, is_value=True)))
            self._here.to_content()
            if not self._is_next(column):
                return self._map(items, place)

    def _is_next(self, column: int) -> bool:
        """Whether another item of the collection at `column` begins here. Raises: InvalidArgument."""
        if self._here.is_end() or self._here.column() < column:
            return False
        if self._here.column() > column:
            raise self._bad_indent()
        return True

    def _block_key(self) -> Scalar:
        end = key_end(self._here)
        if end is None:
            line = self._here.rest_of_line().strip()
            hint = "a list item" if self._here.is_dash() else short(line)
            raise self._here.error(f"expected 'key: value', got {hint}")
        key = read_quoted(self._here) if self._here.peek() in QUOTED else read_plain_line(self._here, PLAIN)
        self._here.at = end
        return key

    def _map(self, items: list[tuple[Scalar, Node]], place: Place) -> Map:
        """Merge keys resolved: what the map says itself wins, then the first map that is merged."""
        seen: dict[str, Scalar] = {}
        for key, _ in items:
            if key.text in seen:
                first = seen[key.text].place.line
                raise wrong(key.place, f"duplicate key {key.text!r}: it stands on line {first} already")
            seen[key.text] = key
        merge = seen.get("<<")
        if merge is None or not merge.is_plain:
            return make_map(items, place)
        merged: dict[str, tuple[Scalar, Node]] = {k.text: (k, v) for k, v in items if k is not merge}
        for source in _merged(next(value for key, value in items if key is merge)):
            for key, value in source.items:
                merged.setdefault(key.text, (key, value))
        return make_map(merged.values(), place)

    # --- flow --------------------------------------------------------------------------------

    def _flow_node(self, indent: int | None = None) -> Node:
        """A value on this line, perhaps with lines below; `indent` is None inside brackets."""
        self._count += 1
        if self._count > MAX_WEIGHT:
            raise self._here.error(f"too large: more than {MAX_WEIGHT} values")
        match self._here.peek():
            case "[":
                return self._nested(self._flow_sequence)
            case "{":
                return self._nested(self._flow_map)
            case "'" | '"':
                return read_quoted(self._here)
            case "*":
                return self._alias()
            case _:
                return read_plain(self._here, indent)

    def _alias(self) -> Node:
        found = _NAME.match(self._here.text, self._here.at)
        name = found[0][1:] if found else ""
        if name not in self._anchors:
            raise self._here.error(
                f"unknown alias *{name}: no anchor &{name} stands above (quote a text with *)"
            )
        self._here.at += len(name) + 1
        return self._anchors[name]

    def _flow_sequence(self) -> Node:
        place, opened, items = self._here.place(), self._here.at, []
        self._here.at += 1
        while not self._is_closed("]", opened):
            node = self._flow_item()
            self._here.to_content(is_flow=True)
            if self._here.peek() == ":" and isinstance(node, Scalar):
                node = self._map([(node, self._flow_value())], node.place)
            items.append(node)
            self._separator("]", opened)
        return make_sequence(items, place)

    def _flow_map(self) -> Node:
        place, opened = self._here.place(), self._here.at
        items: list[tuple[Scalar, Node]] = []
        self._here.at += 1
        while not self._is_closed("}", opened):
            key = self._flow_item()
            if not isinstance(key, Scalar):
                raise wrong(key.place, "a key must be a text")
            self._here.to_content(is_flow=True)
            null = Scalar(text="", place=self._here.place(), is_plain=True)
            items.append((key, self._flow_value() if self._here.peek() == ":" else null))
            self._separator("}", opened)
        return self._map(items, place)

    def _flow_value(self) -> Node:
        self._here.at += 1
        self._here.to_content(is_flow=True)
        if self._here.peek() in (",", "}", "]"):
            return Scalar(text="", place=self._here.place(), is_plain=True)
        return self._flow_item()

    def _flow_item(self) -> Node:
        anchor, tag = self._properties()
        self._here.to_content(is_flow=True)
        if (anchor or tag) and self._here.peek() in (",", "}", "]"):
            return self._named(Scalar(text="", place=self._here.place(), is_plain=True), anchor, tag)
        return self._named(self._flow_node(), anchor, tag)

    def _is_closed(self, end: str, opened: int) -> bool:
        self._here.to_content(is_flow=True)
        if self._here.at >= len(self._here.text):
            raise self._here.error(f"{self._here.text[opened]!r} is never closed by {end!r}", opened)
        if self._here.peek() != end:
            return False
        self._here.at += 1
        return True

    def _separator(self, end: str, opened: int) -> None:
        self._here.to_content(is_flow=True)
        if self._here.peek() == ",":
            self._here.at += 1
        elif self._here.peek() not in (end, ""):
            line = self._here.place(opened).line
            raise self._here.error(
                f"expected ',' or {end!r} after an item of the {self._here.text[opened]!r} on line {line}"
            )


def _merged(value: Node) -> list[Map]:
    sources = value.items if isinstance(value, Sequence) else (value,)
    found = []
    for source in sources:
        if not isinstance(source, Map):
            raise wrong(value.place, "<< takes a map, or a list of maps")
        found.append(source)
    return found
