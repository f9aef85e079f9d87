"""A template's text in; literal pieces and tokens of actions out, trimmed and without comments."""

from __future__ import annotations

import re
from dataclasses import dataclass

from swarm.model.gotemplate.nodes import Position, TemplateError

_SPACE = " \t\r\n"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<raw>`[^`]*`)
      | (?P<char>'(?:\\.[^']*|[^'\\\n])')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+
                          |(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
      | (?P<field>\.[^\W\d]\w*)
      | (?P<dot>\.)
      | (?P<variable>\$\w*)
      | (?P<word>[^\W\d]\w*)
      | (?P<declare>:=)
      | (?P<mark>[=|(),])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is the name of a group of the token pattern."""

    kind: str
    text: str
    position: Position


@dataclass(frozen=True, slots=True)
class ActionTokens:
    tokens: tuple[Token, ...]
    position: Position


def syntax_error(line: int, message: str) -> TemplateError:
    return TemplateError(f"template: :{line}: {message}")


def position_of(text: str, offset: int) -> Position:
    start = text.rfind("\n", 0, offset) + 1
    return Position(line=text.count("\n", 0, offset) + 1, column=len(text[start:offset].encode()))


def lex(text: str) -> list[str | ActionTokens]:
    """Literal text as str, actions as tokens, in order.

    Raises:
        TemplateError: an action is not closed or holds a character that means nothing.
    """
    pieces: list[str | ActionTokens] = []
    offset, trim_next = 0, False
    while (start := text.find("{{", offset)) >= 0:
        literal = text[offset:start]
        inside = start + 2
        trims = text[inside : inside + 1] == "-" and text[inside + 1 : inside + 2] in tuple(_SPACE)
        inside += 1 if trims else 0
        literal = literal.lstrip(_SPACE) if trim_next else literal
        pieces.append(literal.rstrip(_SPACE) if trims else literal)
        tokens, offset, trim_next = _lex_action(text, inside)
        if tokens is not None:
            pieces.append(ActionTokens(tuple(tokens), position_of(text, start)))
    rest = text[offset:]
    pieces.append(rest.lstrip(_SPACE) if trim_next else rest)
    return [piece for piece in pieces if piece != ""]


def _close(text: str, offset: int) -> tuple[int, bool] | None:
    """The offset behind a closing delimiter at `offset`, and whether it trims what follows."""
    if text.startswith("}}", offset):
        return offset + 2, False
    if text[offset : offset + 1] in tuple(_SPACE) and text.startswith("-}}", offset + 1):
        return offset + 4, True
    return None


def _lex_action(text: str, offset: int) -> tuple[list[Token] | None, int, bool]:
    """Tokens from `offset` to the action's end (None for a comment), the offset behind it, and its trim."""
    line = position_of(text, offset).line
    comment = _COMMENT.match(text, offset + len(text[offset:]) - len(text[offset:].lstrip(_SPACE)))
    if comment:
        closed = _close(text, comment.end())
        if closed is None:
            raise syntax_error(line, "comment ends before closing delimiter")
        return None, *closed
    tokens: list[Token] = []
    while True:
        closed = _close(text, offset)
        if closed is not None:
            return tokens, *closed
        if offset >= len(text):
            raise syntax_error(line, "unclosed action")
        found = _TOKEN.match(text, offset)
        if found is None or found.lastgroup is None:
            raise _unknown(text, offset)
        tokens.append(Token(found.lastgroup, found.group(), position_of(text, offset)))
        offset = found.end()


def _unknown(text: str, offset: int) -> TemplateError:
    line = position_of(text, offset).line
    character = text[offset]
    if character == '"':
        return syntax_error(line, "unterminated quoted string")
    if character == "`":
        return syntax_error(line, "unterminated raw quoted string")
    if character == "'":
        return syntax_error(line, "unterminated character constant")
    return syntax_error(line, f"unexpected {character!r} in command")
