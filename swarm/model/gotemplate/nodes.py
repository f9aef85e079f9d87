"""The syntax tree of a template, and how a node is written in an error message."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.base.errors import InvalidArgument


class TemplateError(InvalidArgument):
    """A template that cannot be parsed or executed; the text starts with `template: `."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Line from 1, column from 0, as Go prints them."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    pass


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; `source` is how it was written."""

    value: str | int | float | bool | None
    source: str


@dataclass(frozen=True, slots=True)
class Field:
    names: tuple[str, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    names: tuple[str, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    position: Position


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields of a parenthesised pipeline: `(index .A 0).B`."""

    inner: Pipe
    names: tuple[str, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Command:
    """An operand alone, or a function and its arguments."""

    operands: tuple[Operand, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Pipe:
    """`variables` are declared, or assigned when `assigns`."""

    variables: tuple[str, ...]
    assigns: bool
    commands: tuple[Command, ...]
    position: Position


Operand = Dot | Literal | Field | Variable | Function | Chain | Pipe


@dataclass(frozen=True, slots=True)
class Action:
    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` or `range`, by `keyword`."""

    keyword: str
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


Node = Text | Action | Branch


@dataclass(frozen=True, slots=True)
class Template:
    nodes: tuple[Node, ...]


def describe(node: Operand | Command) -> str:
    """The source form of a node, as error messages show it."""
    match node:
        case Dot():
            return "."
        case Literal(source=source):
            return source
        case Field(names=names):
            return "".join(f".{name}" for name in names)
        case Variable(name=name, names=names):
            return ".".join((name, *names))
        case Function(name=name):
            return name
        case Chain(inner=inner, names=names):
            return f"({describe(inner)})" + "".join(f".{name}" for name in names)
        case Command(operands=operands):
            return " ".join(f"({describe(o)})" if isinstance(o, Pipe) else describe(o) for o in operands)
        case Pipe(variables=variables, assigns=assigns, commands=commands):
            declared = ", ".join(variables) + (" = " if assigns else " := ") if variables else ""
            return declared + " | ".join(describe(command) for command in commands)
