"""A command line of a compose file as words, as Docker splits it. Pure; ValueError for an open quote.

Spaces part words; '…' takes all as it is, in "…" and outside a backslash takes the next character as it is;
a # that begins a word begins a comment. Nothing else means anything: no variables, pipes or globs.
Source: what `docker stack config` prints of such lines.
"""

from __future__ import annotations

import re

_PIECE = re.compile(
    r"""(?P<space>[ \t\r\n]+) | '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | \\(?P<escaped>.)
    | (?P<plain>[^ \t\r\n'"\\]+)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def split_command(line: str) -> list[str]:
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(line):
        if word is None and line[at] == "#":
            end = line.find("\n", at)
            at = end if end >= 0 else len(line)
            continue
        found = _PIECE.match(line, at)
        if found is None:
            is_escape = line[at] == "\\"
            raise ValueError(
                "nothing follows the backslash" if is_escape else f"the quote {line[at]} has no end"
            )
        at = found.end()
        if found["space"] is None:
            word = (word or "") + _text(found)
        elif word is not None:
            words.append(word)
            word = None
    return words if word is None else [*words, word]


def _text(found: re.Match[str]) -> str:
    if found["double"] is not None:
        return _ESCAPE.sub(r"\1", found["double"])
    return found["single"] or found["escaped"] or found["plain"] or ""
