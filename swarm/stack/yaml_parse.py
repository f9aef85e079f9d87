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
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace

from swarm.base.errors import InvalidArgument
from swarm.stack.project import Place
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
from swarm.stack.yaml_scalars import fold, read_block, read_double, read_single

MAX_LENGTH = 1024 * 1024

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:(?:(?<![^\s])#[^\n]*)?(?:\n|\Z))")
_PLAIN = re.compile(r"(?:[^\s:#]|:(?=\S)|(?<=\S)#|[ \t]+(?=[^\s#]))+")
_PLAIN_FLOW = re.compile(r"(?:[^\s:#,\[\]{}]|:(?=[^\s,\[\]{}])|(?<=\S)#|[ \t]+(?=[^\s#]))+")
_QUOTED = {"'": re.compile(r"'((?:[^']|'')*)'"), '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)}
_BLOCK_HEADER = re.compile(r"[|>](?:([1-9])?([+-])?|([+-])([1-9]))[ \t]*(?:(?<=[ \t])#[^\n]*)?(?:\n|\Z)")
_NAME = re.compile(r"[^\s,\[\]{}]+")
_MARKER = re.compile(r"(?:---|\.\.\.)(?=\s|\Z)")
_COLON = re.compile(r"[ \t]*:(?=\s|\Z)")
_TAGS = {"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq", "!reset", "!override", "!"}
_CONTROL = re.compile(r"[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse_yaml(text: str, file: str) -> Node:
    """The one document of `text`. Raises: InvalidArgument, which begins with `file:line:column`."""
    start = Place(file=file, line=1, column=1)
    if len(text) > MAX_LENGTH:
        raise wrong(start, f"the file is too large: at most {MAX_LENGTH} characters")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    parser = _Parser(text, file)
    bad = _CONTROL.search(text)
    if bad is not None:
        raise wrong(parser.place(bad.start()), f"control character {bad[0]!r}: this is no text file")
    return parser.document()


class _Parser:
    """A cursor over the text. Block structure is by columns, which count from 0 here."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._depth = 0
        self._count = 0
        self._anchors: dict[str, Node] = {}
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    # --- where ------------------------------------------------------------------------------------------

    def place(self, at: int | None = None) -> Place:
        at = self._at if at is None else at
        line = bisect_right(self._starts, at)
        return Place(file=self._file, line=line, column=at - self._starts[line - 1] + 1)

    def _column(self) -> int:
        return self._at - self._starts[bisect_right(self._starts, self._at) - 1]

    def _wrong(self, text: str, at: int | None = None) -> InvalidArgument:
        return wrong(self.place(at), text)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _is_dash(self) -> bool:
        return self._peek() == "-" and self._text[self._at + 1 : self._at + 2] in ("", " ", "\t", "\n")

    def _is_end(self) -> bool:
        if self._at >= len(self._text):
            return True
        return self._peek() in "-." and self._column() == 0 and bool(_MARKER.match(self._text, self._at))

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _is_line_over(self) -> bool:
        return _BLANK.match(self._text, self._at) is not None

    def _to_content(self, *, is_flow: bool = False) -> None:
        """Over blank lines and comments to the next token; indentation is of spaces."""
        while self._at < len(self._text):
            found = _BLANK.match(self._text, self._at)
            if found is None:
                break
            self._at = found.end()
            if found.end() == found.start():
                break
        start = self._at
        self._skip_space()
        tab = self._text.find("\t", start, self._at)
        is_line_start = start == 0 or self._text[start - 1] == "\n"
        if tab >= 0 and is_line_start and not is_flow and not self._is_line_over():
            raise self._wrong("a tab cannot indent: use spaces", tab)

    # --- the document -----------------------------------------------------------------------------------

    def document(self) -> Node:
        self._to_content()
        while self._peek() == "%" and self._column() == 0:
            self._directive()
        if _MARKER.match(self._text, self._at) and self._text.startswith("---", self._at):
            self._at += 3
        node = self._node(-1)
        self._to_content()
        if self._text.startswith("...", self._at) and self._is_end():
            self._at += 3
            self._to_content()
        if self._at < len(self._text):
            if _MARKER.match(self._text, self._at):
                raise self._wrong("a second document begins here: a compose file is one document")
            raise self._bad_indent()
        return node

    def _directive(self) -> None:
        line = self._text[self._at :].split("\n", 1)[0]
        if not re.fullmatch(r"%YAML[ \t]+1\.[0-9][ \t]*(#.*)?", line):
            raise self._wrong(f"directive {line.split()[0]} is not supported")
        self._at += len(line)
        self._to_content()

    def _bad_indent(self) -> InvalidArgument:
        return self._wrong("wrong indentation: this line begins at no column of the lines above it")

    # --- block ------------------------------------------------------------------------------------------

    def _node(self, indent: int, *, is_value: bool = False) -> Node:
        """The node that begins here, or on a later line right of `indent`; nothing there is null.

        `is_value`: it follows `key:`, so a list may begin below the key, and no key may follow on this line.
        """
        start, is_fresh = self._at, self._is_line_over()
        null = Scalar(text="", place=self.place(), is_plain=True)
        self._to_content()
        if not self._is_inside(indent, is_value=is_value, is_fresh=is_fresh):
            self._at = start
            return null
        if self._peek() not in ("&", "!"):
            return self._content(indent, is_compact=is_fresh or not is_value)
        anchor, tag = self._properties()
        if not self._is_line_over():
            return self._named(self._content(indent, is_compact=False), anchor, tag)
        self._to_content()
        if not self._is_inside(indent, is_value=is_value, is_fresh=True):
            return self._named(null, anchor, tag)
        return self._named(self._content(indent, is_compact=True), anchor, tag)

    def _is_inside(self, indent: int, *, is_value: bool, is_fresh: bool) -> bool:
        if self._is_end():
            return False
        column = self._column()
        return not is_fresh or column > indent or (is_value and column == indent and self._is_dash())

    def _properties(self) -> tuple[str, str]:
        anchor, tag = "", ""
        while self._peek() in ("&", "!"):
            start = self._at
            found = _NAME.match(self._text, self._at)
            word = found[0] if found else ""
            self._at += len(word)
            if word.startswith("&"):
                anchor = word[1:]
            elif word in _TAGS:
                tag = word
            else:
                raise self._wrong(f"tag {word} is not supported: leave it out", start)
            self._skip_space()
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
        if self._is_dash():
            if not is_compact:
                raise self._wrong("a list begins on a line of its own")
            return self._nested(self._block_sequence)
        if self._peek() == "?" and self._text[self._at + 1 : self._at + 2] in (" ", "\n", ""):
            raise self._wrong("keys that begin with '?' are not supported: write 'key: value'")
        if self._peek() in ("|", ">"):
            return self._block_text(indent)
        if self._key_end() is not None:
            if not is_compact:
                raise self._wrong("a key and value cannot stand here: begin a new line, or quote the text")
            return self._nested(self._block_map)
        node = self._flow_node(indent)
        if not self._is_line_over():
            rest = self._text[self._at :].split("\n", 1)[0].strip()
            raise self._wrong(f"unexpected {_short(rest)} after the value: quote the whole text")
        return node

    def _nested(self, read: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"nested too deeply: more than {MAX_DEPTH} levels")
        node = read()
        self._depth -= 1
        return node

    def _block_sequence(self) -> Node:
        column, place, items = self._column(), self.place(), []
        while True:
            self._at += 1
            self._skip_space()
            items.append(self._node(column))
            self._to_content()
            if not self._is_next(column) or not self._is_dash():
                return make_sequence(items, place)

    def _block_map(self) -> Node:
        column, place = self._column(), self.place()
        items: list[tuple[Scalar, Node]] = []
        while True:
            key = self._block_key()
            items.append((key, self._node(column, is_value=True)))
            self._to_content()
            if not self._is_next(column):
                return self._map(items, place)

    def _is_next(self, column: int) -> bool:
        """Whether another item of the collection at `column` begins here. Raises: InvalidArgument."""
        if self._is_end() or self._column() < column:
            return False
        if self._column() > column:
            raise self._bad_indent()
        return True

    def _block_key(self) -> Scalar:
        end = self._key_end()
        if end is None:
            line = self._text[self._at :].split("\n", 1)[0].strip()
            hint = "a list item" if self._is_dash() else _short(line)
            raise self._wrong(f"expected 'key: value', got {hint}")
        key = self._quoted() if self._peek() in _QUOTED else self._plain_line(_PLAIN)
        self._at = end
        return key

    def _key_end(self) -> int | None:
        """Where the value of the key that stands here begins, if it is one."""
        quoted = _QUOTED.get(self._peek())
        found = (quoted or _PLAIN).match(self._text, self._at)
        if found is None or "\n" in found[0] or (quoted is None and not self._can_begin_text()):
            return None
        colon = _COLON.match(self._text, found.end())
        return colon.end() if colon else None

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

    def _block_text(self, indent: int) -> Node:
        place, is_folded = self.place(), self._peek() == ">"
        header = _BLOCK_HEADER.match(self._text, self._at)
        if header is None:
            raise self._wrong("after | or > comes the end of the line: quote the text")
        self._at = header.end()
        digit, chomp = header[1] or header[4], header[2] or header[3] or ""
        width = max(indent, 0) + int(digit) if digit else None
        lines: list[str] = []
        while self._at < len(self._text):
            end = self._text.find("\n", self._at)
            line = self._text[self._at : end if end >= 0 else len(self._text)]
            spaces = len(line) - len(line.lstrip(" "))
            if width is None and line.strip(" ") and spaces > indent:
                width = spaces
            if line.strip(" ") and (width is None or spaces < width):
                break
            lines.append(line[width:] if width is not None else "")
            self._at = end + 1 if end >= 0 else len(self._text)
        return Scalar(text=read_block(lines, is_folded=is_folded, chomp=chomp), place=place)

    # --- flow, and texts --------------------------------------------------------------------------------

    def _flow_node(self, indent: int | None = None) -> Node:
        """A value on this line, perhaps with lines below; `indent` is None inside brackets."""
        self._count += 1
        if self._count > MAX_WEIGHT:
            raise self._wrong(f"too large: more than {MAX_WEIGHT} values")
        match self._peek():
            case "[":
                return self._nested(self._flow_sequence)
            case "{":
                return self._nested(self._flow_map)
            case "'" | '"':
                return self._quoted()
            case "*":
                return self._alias()
            case _:
                return self._plain(indent)

    def _alias(self) -> Node:
        found = _NAME.match(self._text, self._at)
        name = found[0][1:] if found else ""
        if name not in self._anchors:
            raise self._wrong(f"unknown alias *{name}: no anchor &{name} stands above (quote a text with *)")
        self._at += len(name) + 1
        return self._anchors[name]

    def _quoted(self) -> Scalar:
        place, quote = self.place(), self._peek()
        found = _QUOTED[quote].match(self._text, self._at)
        if found is None:
            raise self._wrong(f"the text that begins with {quote} here is never closed")
        try:
            text = read_single(found[1]) if quote == "'" else read_double(found[1])
        except ValueError as error:
            raise self._wrong(str(error)) from None
        self._at = found.end()
        return Scalar(text=text, place=place)

    def _can_begin_text(self) -> bool:
        first, following = self._peek(), self._text[self._at + 1 : self._at + 2]
        if first in ("-", "?", ":"):
            return following not in ("", " ", "\t", "\n")
        return first not in set(",[]{}#&*!|>'\"%@`") and first != ""

    def _plain_line(self, pattern: re.Pattern[str]) -> Scalar:
        place, found = self.place(), pattern.match(self._text, self._at)
        if found is None or not self._can_begin_text():
            raise self._wrong(f"{_short(self._peek())} cannot begin a text: quote it")
        self._at = found.end()
        return Scalar(text=found[0].rstrip(), place=place, is_plain=True)

    def _plain(self, indent: int | None) -> Scalar:
        start = self._at
        pattern = _PLAIN if indent is not None else _PLAIN_FLOW
        first = self._plain_line(pattern)
        while self._peek() == "\n" or self._text[self._at : self._at + 1].isspace():
            found = re.compile(r"\s*").match(self._text, self._at)
            after = found.end() if found else self._at
            if "\n" not in self._text[self._at : after] or not self._goes_on(after, indent, start):
                break
            more = pattern.match(self._text, after)
            if more is None:
                break
            self._at = more.end()
        text = fold(self._text[start : self._at].rstrip())
        return Scalar(text=text, place=first.place, is_plain=True)

    def _goes_on(self, at: int, indent: int | None, start: int) -> bool:
        """Whether the text from `start` continues at `at`, on a later line. Raises: InvalidArgument."""
        first = self._text[at : at + 1]
        column = self.place(at).column - 1
        if first in ("", "#") or (column == 0 and _MARKER.match(self._text, at)):
            return False
        if indent is None:
            return first not in set(",[]{}:")
        if column <= indent:
            return False
        found = _PLAIN.match(self._text, at)
        is_key = found is not None and _COLON.match(self._text, found.end())
        if is_key or self._text[at : at + 2] == "- ":
            what = "this key" if is_key else "this list item"
            line = self.place(start).line
            raise self._wrong(
                f"wrong indentation: {what} stands inside the text that begins on line {line}", at
            )
        return True

    def _flow_sequence(self) -> Node:
        place, opened, items = self.place(), self._at, []
        self._at += 1
        while not self._is_closed("]", opened):
            node = self._flow_item()
            self._to_content(is_flow=True)
            if self._peek() == ":" and isinstance(node, Scalar):
                node = self._map([(node, self._flow_value())], node.place)
            items.append(node)
            self._separator("]", opened)
        return make_sequence(items, place)

    def _flow_map(self) -> Node:
        place, opened = self.place(), self._at
        items: list[tuple[Scalar, Node]] = []
        self._at += 1
        while not self._is_closed("}", opened):
            key = self._flow_item()
            if not isinstance(key, Scalar):
                raise wrong(key.place, "a key must be a text")
            self._to_content(is_flow=True)
            null = Scalar(text="", place=self.place(), is_plain=True)
            items.append((key, self._flow_value() if self._peek() == ":" else null))
            self._separator("}", opened)
        return self._map(items, place)

    def _flow_value(self) -> Node:
        self._at += 1
        self._to_content(is_flow=True)
        if self._peek() in (",", "}", "]"):
            return Scalar(text="", place=self.place(), is_plain=True)
        return self._flow_item()

    def _flow_item(self) -> Node:
        anchor, tag = self._properties()
        self._to_content(is_flow=True)
        if (anchor or tag) and self._peek() in (",", "}", "]"):
            return self._named(Scalar(text="", place=self.place(), is_plain=True), anchor, tag)
        return self._named(self._flow_node(), anchor, tag)

    def _is_closed(self, end: str, opened: int) -> bool:
        self._to_content(is_flow=True)
        if self._at >= len(self._text):
            raise self._wrong(f"{self._text[opened]!r} is never closed by {end!r}", opened)
        if self._peek() != end:
            return False
        self._at += 1
        return True

    def _separator(self, end: str, opened: int) -> None:
        self._to_content(is_flow=True)
        if self._peek() == ",":
            self._at += 1
        elif self._peek() not in (end, ""):
            line = self.place(opened).line
            raise self._wrong(
                f"expected ',' or {end!r} after an item of the {self._text[opened]!r} on line {line}"
            )


def _merged(value: Node) -> list[Map]:
    sources = value.items if isinstance(value, Sequence) else (value,)
    found = []
    for source in sources:
        if not isinstance(source, Map):
            raise wrong(value.place, "<< takes a map, or a list of maps")
        found.append(source)
    return found


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
