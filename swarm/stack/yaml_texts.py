"""Texts of YAML where a cursor stands: plain, quoted and block ones, with the lines that belong to them.

In: a cursor at the text's begin. Out: the scalar, the cursor behind it. Pure.
"""

from __future__ import annotations

import re

from swarm.stack.yaml_cursor import MARKER, Cursor
from swarm.stack.yaml_nodes import Scalar
from swarm.stack.yaml_scalars import fold, read_block, read_double, read_single

PLAIN = re.compile(r"(?:[^\s:#]|:(?=\S)|(?<=\S)#|[ \t]+(?=[^\s#]))+")
_PLAIN_FLOW = re.compile(r"(?:[^\s:#,\[\]{}]|:(?=[^\s,\[\]{}])|(?<=\S)#|[ \t]+(?=[^\s#]))+")
QUOTED = {"'": re.compile(r"'((?:[^']|'')*)'"), '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)}
_BLOCK_HEADER = re.compile(r"[|>](?:([1-9])?([+-])?|([+-])([1-9]))[ \t]*(?:(?<=[ \t])#[^\n]*)?(?:\n|\Z)")
_COLON = re.compile(r"[ \t]*:(?=\s|\Z)")
_SPACES = re.compile(r"\s*")


def read_quoted(cursor: Cursor) -> Scalar:
    place, quote = cursor.place(), cursor.peek()
    found = QUOTED[quote].match(cursor.text, cursor.at)
    if found is None:
        raise cursor.error(f"the text that begins with {quote} here is never closed")
    try:
        text = read_single(found[1]) if quote == "'" else read_double(found[1])
    except ValueError as error:
        raise cursor.error(str(error)) from None
    cursor.at = found.end()
    return Scalar(text=text, place=place)


def _can_begin(cursor: Cursor) -> bool:
    first, following = cursor.peek(), cursor.following()
    if first in ("-", "?", ":"):
        return following not in ("", " ", "\t", "\n")
    return first not in set(",[]{}#&*!|>'\"%@`") and first != ""


def read_plain_line(cursor: Cursor, pattern: re.Pattern[str]) -> Scalar:
    place, found = cursor.place(), pattern.match(cursor.text, cursor.at)
    if found is None or not _can_begin(cursor):
        raise cursor.error(f"{short(cursor.peek())} cannot begin a text: quote it")
    cursor.at = found.end()
    return Scalar(text=found[0].rstrip(), place=place, is_plain=True)


def read_plain(cursor: Cursor, indent: int | None) -> Scalar:
    start = cursor.at
    pattern = PLAIN if indent is not None else _PLAIN_FLOW
    first = read_plain_line(cursor, pattern)
    while cursor.peek().isspace():
        found = _SPACES.match(cursor.text, cursor.at)
        after = found.end() if found else cursor.at
        if "\n" not in cursor.text[cursor.at : after] or not _goes_on(cursor, after, indent, start):
            break
        more = pattern.match(cursor.text, after)
        if more is None:
            break
        cursor.at = more.end()
    text = fold(cursor.text[start : cursor.at].rstrip())
    return Scalar(text=text, place=first.place, is_plain=True)


def _goes_on(cursor: Cursor, at: int, indent: int | None, start: int) -> bool:
    """Whether the text from `start` continues at `at`, on a later line. Raises: InvalidArgument."""
    first = cursor.text[at : at + 1]
    column = cursor.place(at).column - 1
    if first in ("", "#") or (column == 0 and MARKER.match(cursor.text, at)):
        return False
    if indent is None:
        return first not in set(",[]{}:")
    if column <= indent:
        return False
    found = PLAIN.match(cursor.text, at)
    is_key = found is not None and _COLON.match(cursor.text, found.end())
    if is_key or cursor.text[at : at + 2] == "- ":
        what = "this key" if is_key else "this list item"
        line = cursor.place(start).line
        raise cursor.error(f"wrong indentation: {what} stands inside the text that begins on line {line}", at)
    return True


def read_block_text(cursor: Cursor, indent: int) -> Scalar:
    place, is_folded = cursor.place(), cursor.peek() == ">"
    header = _BLOCK_HEADER.match(cursor.text, cursor.at)
    if header is None:
        raise cursor.error("after | or > comes the end of the line: quote the text")
    cursor.at = header.end()
    digit, chomp = header[1] or header[4], header[2] or header[3] or ""
    width = max(indent, 0) + int(digit) if digit else None
    lines: list[str] = []
    while cursor.at < len(cursor.text):
        end = cursor.text.find("\n", cursor.at)
        line = cursor.text[cursor.at : end if end >= 0 else len(cursor.text)]
        spaces = len(line) - len(line.lstrip(" "))
        if width is None and line.strip(" ") and spaces > indent:
            width = spaces
        if line.strip(" ") and (width is None or spaces < width):
            break
        lines.append(line[width:] if width is not None else "")
        cursor.at = end + 1 if end >= 0 else len(cursor.text)
    return Scalar(text=read_block(lines, is_folded=is_folded, chomp=chomp), place=place)


def key_end(cursor: Cursor) -> int | None:
    """Where the value of the key that stands here begins, if it is one."""
    quoted = QUOTED.get(cursor.peek())
    found = (quoted or PLAIN).match(cursor.text, cursor.at)
    if found is None or "\n" in found[0] or (quoted is None and not _can_begin(cursor)):
        return None
    colon = _COLON.match(cursor.text, found.end())
    return colon.end() if colon else None


def short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
