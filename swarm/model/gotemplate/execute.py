"""A syntax tree and plain values in, text out, within bounds on steps and output.

Invariant: a name after a dot is only ever a key of a mapping; nothing else of a value is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.model.gotemplate.functions import FUNCTIONS, Builtin
from swarm.model.gotemplate.nodes import (
    Action,
    Branch,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    Literal,
    Node,
    Operand,
    Pipe,
    Position,
    Template,
    TemplateError,
    Text,
    Variable,
    describe,
)
from swarm.model.gotemplate.values import is_list, show, truth, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that no sensible template meets: nodes visited, and characters written."""

    steps: int = 200_000
    output: int = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`type_name` is what a missing field of the data is reported on (a plain map when empty); `optional` are
    keys that are nil where they are missing: an API leaves out what is empty. `header` turns the functions
    that shape a value into no-ops, for the header line of a table.
    """

    type_name: str = ""
    optional: frozenset[str] = frozenset()
    header: bool = False
    limits: Limits = Limits()
    functions: Mapping[str, Builtin] = field(default_factory=dict)
    """Beside the usual ones: `parse` must have been told their names."""


_SHAPING = {"json", "title", "lower", "upper", "truncate", "split", "join", "pad"}
_NOTHING = object()


def execute(template: Template, data: object, options: Options | None = None) -> str:
    """The text that `template` makes of `data`.

    Raises:
        TemplateError: a missing field, a wrong argument, or a bound exceeded.
    """
    run = _Run(data, options or Options())
    run.nodes(template.nodes, data)
    return "".join(run.out)


class _Run:
    def __init__(self, root: object, options: Options) -> None:
        self.out: list[str] = []
        self._root = root
        self._options = options
        self._variables: list[tuple[str, object]] = [("$", root)]
        self._steps = 0
        self._written = 0

    def nodes(self, nodes: Iterable[Node], dot: object) -> None:
        for node in nodes:
            self._step()
            match node:
                case Text(text):
                    self._write(text)
                case Action(pipe):
                    value = self._pipe(pipe, dot)
                    if not pipe.variables:
                        self._write(show(value))
                case Branch():
                    self._branch(node, dot)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > self._options.limits.steps:
            raise TemplateError("template: executing: too many steps")

    def _write(self, text: str) -> None:
        self._written += len(text)
        if self._written > self._options.limits.output:
            raise TemplateError("template: executing: too much output")
        self.out.append(text)

    def _branch(self, node: Branch, dot: object) -> None:
        depth = len(self._variables)
        if node.keyword == "range":
            self._range(node, dot)
        else:
            value = self._pipe(node.pipe, dot)
            if truth(value):
                self.nodes(node.body, value if node.keyword == "with" else dot)
            else:
                self.nodes(node.otherwise, dot)
        del self._variables[depth:]

    def _range(self, node: Branch, dot: object) -> None:
        value = self._pipe(node.pipe, dot, declare=False)
        depth = len(self._variables)
        items = self._items(node, value)
        if not items:
            self.nodes(node.otherwise, dot)
        for key, item in items:
            self._step()
            names = node.pipe.variables
            self._set(node.pipe, dict(zip(names, (item,) if len(names) == 1 else (key, item), strict=False)))
            self.nodes(node.body, item)
            del self._variables[depth:]

    def _items(self, node: Branch, value: object) -> Sequence[tuple[object, object]]:
        if value is None:
            return ()
        if isinstance(value, Mapping):
            return [(key, value[key]) for key in sorted(value)]
        if is_list(value) and isinstance(value, Sequence):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(n, n) for n in range(min(value, self._options.limits.steps))]
        text = f"range can't iterate over {show(value)}"
        raise self._error(node.pipe.commands[-1].position, describe(node.pipe), text)

    def _set(self, pipe: Pipe, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            if not pipe.assigns:
                self._variables.append((name, value))
                continue
            for at in range(len(self._variables) - 1, -1, -1):
                if self._variables[at][0] == name:
                    self._variables[at] = (name, value)
                    break

    def _pipe(self, pipe: Pipe, dot: object, *, declare: bool = True) -> object:
        value: object = _NOTHING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        if declare:
            self._set(pipe, dict.fromkeys(pipe.variables, value))
        return value

    def _command(self, command: Command, dot: object, last: object) -> object:
        first = command.operands[0]
        if isinstance(first, Function):
            return self._call(first, command, dot, last)
        if len(command.operands) > 1 or last is not _NOTHING:
            name = describe(first)
            text = f"{name.rsplit('.', 1)[-1]} is not a method but has arguments"
            raise self._error(command.position, name, text)
        return self._operand(first, dot)

    def _operand(self, operand: Operand, dot: object) -> object:
        match operand:
            case Dot():
                return dot
            case Literal(value=constant):
                return constant
            case Field(names=names, position=position):
                return self._fields(dot, names, position, operand)
            case Variable(name=name, names=names, position=position):
                value = next(v for n, v in reversed(self._variables) if n == name)
                return self._fields(value, names, position, operand)
            case Chain(inner=inner, names=names, position=position):
                return self._fields(self._pipe(inner, dot), names, position, operand)
            case Pipe():
                return self._pipe(operand, dot)
            case Function():
                return self._call(operand, Command((operand,), operand.position), dot, _NOTHING)

    def _fields(self, value: object, names: Sequence[str], position: Position, at: Operand) -> object:
        for name in names:
            if isinstance(value, Mapping):
                if name in value:
                    value = value[name]
                    continue
                if name in self._options.optional:
                    value = None
                    continue
                if value is self._root and self._options.type_name:
                    text = f"can't evaluate field {name} in type {self._options.type_name}"
                else:
                    text = f'map has no entry for key "{name}"'
            elif value is None:
                text = f"nil pointer evaluating interface {{}}.{name}"
            else:
                text = f"can't evaluate field {name} in type {type_name(value)}"
            raise self._error(position, describe(at), text)
        return value

    def _call(self, function: Function, command: Command, dot: object, last: object) -> object:
        name = function.name
        if name in ("and", "or"):
            return self._short_circuit(function, command, dot, last)
        arguments = [self._operand(operand, dot) for operand in command.operands[1:]]
        if last is not _NOTHING:
            arguments.append(last)
        builtin = self._options.functions.get(name) or FUNCTIONS[name]
        if len(arguments) < builtin.least or (builtin.most is not None and len(arguments) > builtin.most):
            want = f"at least {builtin.least}" if builtin.most is None else str(builtin.least)
            text = f"wrong number of args for {name}: want {want} got {len(arguments)}"
            raise self._error(function.position, name, text)
        if self._options.header and name in _SHAPING:
            # Docker pads headers as it pads values, and shows the others as they are.
            return builtin.call(*arguments) if name == "pad" else _subject(name, arguments)
        try:
            return self._bounded(builtin.call(*arguments))
        except ValueError as error:
            text = f"error calling {name}: {error}"
            raise self._error(function.position, describe(command), text) from None

    def _bounded(self, value: object) -> object:
        """Texts may not grow without end, nor be kept in variables where no output counts them."""
        if isinstance(value, str) and len(value) > self._options.limits.output:
            raise TemplateError("template: executing: too much output")
        return value

    def _short_circuit(self, function: Function, command: Command, dot: object, last: object) -> object:
        values: list[object] = [last] if last is not _NOTHING else []
        operands = command.operands[1:]
        if not operands and not values:
            text = f"wrong number of args for {function.name}: want at least 1 got 0"
            raise self._error(function.position, function.name, text)
        result: object = None
        for operand in operands:
            result = self._operand(operand, dot)
            if truth(result) == (function.name == "or"):
                return result
        return values[0] if values else result

    def _error(self, position: Position, context: str, text: str) -> TemplateError:
        shown = context if len(context) <= 20 else context[:20] + "..."
        return TemplateError(
            f'template: :{position.line}:{position.column}: executing "" at <{shown}>: {text}'
        )


def _subject(name: str, arguments: Sequence[object]) -> object:
    """The value that a shaping function works on."""
    return arguments[0] if arguments else name
