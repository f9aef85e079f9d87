"""A place in a YAML text that moves on: what stands here, and where that is. Pure.

Lines and columns of places count from 1; `column` counts from 0, as indentation does.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from swarm.base.errors import InvalidArgument
from swarm.stack.project import Place
from swarm.stack.yaml_nodes import wrong

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:(?:(?<![^\s])#[^\n]*)?(?:\n|\Z))")
MARKER = re.compile(r"(?:---|\.\.\.)(?=\s|\Z)")
"""Of a document's begin and end, at a line's begin."""


class Cursor:
    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.at = 0
        self._file = file
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def place(self, at: int | None = None) -> Place:
        at = self.at if at is None else at
        line = bisect_right(self._starts, at)
        return Place(file=self._file, line=line, column=at - self._starts[line - 1] + 1)

    def column(self) -> int:
        return self.at - self._starts[bisect_right(self._starts, self.at) - 1]

    def error(self, text: str, at: int | None = None) -> InvalidArgument:
        return wrong(self.place(at), text)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def following(self) -> str:
        return self.text[self.at + 1 : self.at + 2]

    def rest_of_line(self) -> str:
        end = self.text.find("\n", self.at)
        return self.text[self.at : end if end >= 0 else len(self.text)]

    def is_dash(self) -> bool:
        return self.peek() == "-" and self.following() in ("", " ", "\t", "\n")

    def is_end(self) -> bool:
        if self.at >= len(self.text):
            return True
        return self.peek() in "-." and self.column() == 0 and bool(MARKER.match(self.text, self.at))

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def is_line_over(self) -> bool:
        return _BLANK.match(self.text, self.at) is not None

    def to_content(self, *, is_flow: bool = False) -> None:
        """Over blank lines and comments to the next token; indentation is of spaces."""
        while self.at < len(self.text):
            found = _BLANK.match(self.text, self.at)
            if found is None:
                break
            self.at = found.end()
            if found.end() == found.start():
                break
        start = self.at
        self.skip_space()
        tab = self.text.find("\t", start, self.at)
        is_line_start = start == 0 or self.text[start - 1] == "\n"
        if tab >= 0 and is_line_start and not is_flow and not self.is_line_over():
            raise self.error("a tab cannot indent: use spaces", tab)
