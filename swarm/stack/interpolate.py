"""`$VAR`, `${VAR}`, `${VAR:-default}` and their kin replaced in the texts of a compose file. Pure.

In: nodes and variables. Out: nodes; what was replaced is a text, never null or a number.

Invariant: what a variable holds is not read for variables again, a shared node is replaced once, and all
texts together stay under MAX_LENGTH. Source: Compose Specification, chapter Interpolation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from swarm.stack.project import Notice, Place
from swarm.stack.yaml_nodes import Map, Node, Scalar, Sequence, make_map, make_sequence, wrong

MAX_LENGTH = 4 * 1024 * 1024
MAX_NESTING = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP = re.compile(r"\$")
_STEP_OR_END = re.compile(r"[$}]")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class Interpolation:
    """Replaces variables of `variables`; says so once for each that is not set."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.notices: list[Notice] = []
        self._variables = variables
        self._unset: set[str] = set()
        self._done: dict[int, tuple[Node, Node]] = {}
        self._length = 0

    def node(self, node: Node) -> Node:
        """Values only; keys stay. Raises: InvalidArgument with the place."""
        known = self._done.get(id(node))
        if known is not None:
            return known[1]
        found = self._node(node)
        self._done[id(node)] = (node, found)  # holds the node: an id is one object's only while it lives
        return found

    def _node(self, node: Node) -> Node:
        match node:
            case Scalar():
                if "$" not in node.text:
                    return node
                return replace(node, text=self.text(node.text, node.place), is_plain=False)
            case Sequence():
                return make_sequence((self.node(item) for item in node.items), node.place, node.tag)
            case Map():
                return make_map(((k, self.node(v)) for k, v in node.items), node.place, node.tag)

    def text(self, text: str, place: Place) -> str:
        try:
            found = expand(text, self._variables, lambda name: self._say_unset(name, place))
        except ValueError as error:
            raise wrong(place, str(error)) from None
        self._length += len(found)
        if self._length > MAX_LENGTH:
            raise wrong(
                place, f"too large: more than {MAX_LENGTH} characters once its variables are replaced"
            )
        return found

    def _say_unset(self, name: str, place: Place) -> None:
        if name not in self._unset:
            self._unset.add(name)
            text = f'the variable "{name}" is not set: it defaults to a blank text'
            self.notices.append(Notice(place=place, text=text))


def expand(text: str, variables: Mapping[str, str], say_unset: Callable[[str], None]) -> str:
    """Raises: ValueError for a wrong form, and for `${VAR:?message}` without the variable."""
    return _Expansion(text, variables, say_unset).until("")


class _Expansion:
    """A cursor over one text."""

    def __init__(self, text: str, variables: Mapping[str, str], say_unset: Callable[[str], None]) -> None:
        self._text = text
        self._variables = variables
        self._say_unset = say_unset
        self._at = 0
        self._depth = 0

    def until(self, end: str, *, is_used: bool = True) -> str:
        """The text up to `end` (a brace, or nothing for all of it); what is not used may be unset."""
        found: list[str] = []
        size = 0
        while self._at < len(self._text) and not (end and self._text[self._at] == end):
            stop = (_STEP_OR_END if end else _STEP).search(self._text, self._at)
            here = stop.start() if stop else len(self._text)
            piece = self._text[self._at : here] if here > self._at else self._variable(is_used=is_used)
            self._at = max(self._at, here)
            found.append(piece)
            size += len(piece)
            if size > MAX_LENGTH:
                raise ValueError(
                    f"too large: more than {MAX_LENGTH} characters once its variables are replaced"
                )
        return "".join(found)

    def _variable(self, *, is_used: bool) -> str:
        """The `$…` that stands here."""
        following = self._text[self._at + 1 : self._at + 2]
        if following == "$":
            self._at += 2
            return "$"
        is_braced = following == "{"
        name = _NAME.match(self._text, self._at + (2 if is_braced else 1))
        if name is None:
            raise self._invalid()
        self._at = name.end()
        return self._braced(name[0], is_used=is_used) if is_braced else self._value(name[0], is_used=is_used)

    def _invalid(self) -> ValueError:
        shown = self._text if len(self._text) <= 60 else self._text[:57] + "..."
        return ValueError(
            f'invalid interpolation format: "{shown}": you may need to escape any $ with another $'
        )

    def _value(self, name: str, *, is_used: bool) -> str:
        if name not in self._variables and is_used:
            self._say_unset(name)
        return self._variables.get(name, "")

    def _braced(self, name: str, *, is_used: bool) -> str:
        operator = next((each for each in _OPERATORS if self._text.startswith(each, self._at)), "")
        if not operator and not self._text.startswith("}", self._at):
            raise self._invalid()
        value = self._variables.get(name)
        is_there = bool(value) if operator.startswith(":") else value is not None
        wants_word = is_there if operator.endswith("+") else not is_there
        self._at += len(operator)
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise ValueError(f"variables are nested more than {MAX_NESTING} deep")
        word = self.until("}", is_used=is_used and wants_word)
        self._depth -= 1
        if not self._text.startswith("}", self._at):
            raise self._invalid()
        self._at += 1
        return self._choose(name, operator, word, is_there=is_there, is_used=is_used)

    def _choose(self, name: str, operator: str, word: str, *, is_there: bool, is_used: bool) -> str:
        match operator.removeprefix(":"):
            case "":
                return self._value(name, is_used=is_used)
            case "-":
                return self._variables[name] if is_there else word
            case "+":
                return word if is_there else ""
            case _:
                if not is_there and is_used:
                    raise ValueError(
                        f"required variable {name} is missing a value: {word or 'it is not set'}"
                    )
                return self._variables.get(name, "")
