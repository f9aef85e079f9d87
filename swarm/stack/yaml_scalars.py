"""The texts of YAML: quoted, folded and literal ones, from how they are written to what they say. Pure.

Source: YAML 1.2.2, chapters 7.3 (flow scalars) and 8.1 (block scalars).
"""

from __future__ import annotations

import re

_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "\t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r",
    "e": "\x1b", " ": " ", '"': '"', "/": "/", "\\": "\\", "N": "\x85", "_": "\xa0", "L": "\u2028",
    "P": "\u2029",
}  # fmt: skip
_HEX = {"x": 2, "u": 4, "U": 8}
_BREAK = re.compile(r"[ \t]*\n[ \t\n]*")
_DOUBLE = re.compile(r"\\(?:\n[ \t]*|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[^\n])|[ \t]*\n[ \t\n]*")


def fold(text: str) -> str:
    """A line break is a space; each empty line after it a line break."""
    return _BREAK.sub(lambda found: _breaks(found[0]), text) if "\n" in text else text


def _breaks(text: str) -> str:
    count = text.count("\n")
    return " " if count == 1 else "\n" * (count - 1)


def read_single(body: str) -> str:
    return fold(body).replace("''", "'")


def read_double(body: str) -> str:
    """Raises: ValueError for an escape that YAML does not have."""
    return _DOUBLE.sub(lambda found: _double(found[0]), body)


def _double(text: str) -> str:
    if not text.startswith("\\"):
        return _breaks(text)
    if text[1] == "\n":
        return ""
    if len(text) > 2:
        code = int(text[2:], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ValueError(f"{text} is no character")
        return chr(code)
    if text[1] in _HEX:
        raise ValueError(f"\\{text[1]} needs {_HEX[text[1]]} hexadecimal digits")
    if text[1] not in _ESCAPES:
        raise ValueError(f"unknown escape \\{text[1]}: write \\\\ for a backslash, or use single quotes")
    return _ESCAPES[text[1]]


def read_block(lines: list[str], *, is_folded: bool, chomp: str) -> str:
    """`lines` without their indentation; `chomp` is `-` (no line break at the end), `+` (all), or nothing."""
    kept = len(lines)
    while kept and not lines[kept - 1]:
        kept -= 1
    body, empty = lines[:kept], len(lines) - kept
    text = _fold_block(body) if is_folded else "\n".join(body)
    match chomp:
        case "-":
            return text
        case "+":
            return text + "\n" * (empty + (1 if body else 0))
        case _:
            return text + "\n" if body else ""


def _fold_block(lines: list[str]) -> str:
    """Lines are joined by spaces, but those that are indented more keep their breaks."""
    text, breaks, was_indented = "", 0, True
    for line in lines:
        if not line:
            breaks += 1
            continue
        is_indented = line[0] in " \t"
        if not text:
            text = "\n" * breaks
        elif is_indented or was_indented:
            text += "\n" * (breaks + 1)
        else:
            text += "\n" * breaks if breaks else " "
        text += line
        breaks, was_indented = 0, is_indented
    return text
