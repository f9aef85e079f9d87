"""Tokens in, a syntax tree out. Unknown functions and undeclared variables are found here already."""

from __future__ import annotations

from collections.abc import Set

from swarm.model.gotemplate.functions import FUNCTIONS
from swarm.model.gotemplate.lexer import ActionTokens, Token, lex, syntax_error
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
)

_KEYWORDS = {"if", "with", "range", "else", "end"}
_NOT_HERE = {"define", "template", "block", "break", "continue"}
_MAX_DEPTH = 100
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


def parse(text: str, functions: Set[str] = frozenset()) -> Template:
    """The tree of `text`, which may call `functions` beside the usual ones.

    Raises:
        TemplateError: with Go's sentence, `template: :LINE: ...`.
    """
    return Template(_Parser(lex(text), text.count("\n") + 1, functions).parse_all())


class _Parser:
    def __init__(self, pieces: list[str | ActionTokens], last_line: int, functions: Set[str]) -> None:
        self._functions = FUNCTIONS.keys() | functions | {"and", "or"}
        self._pieces = pieces
        self._at = 0
        self._last_line = last_line
        self._variables = ["$"]
        self._depth = 0

    def parse_all(self) -> tuple[Node, ...]:
        nodes, stop = self._nodes()
        if stop is not None:
            word = stop.peek_word()
            raise stop.error("unexpected " + "{{" + word + "}}")
        return nodes

    def _nodes(self) -> tuple[tuple[Node, ...], _Action | None]:
        """Nodes up to an `else` or `end`, which is handed back, or to the end of the text."""
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                nodes.append(Text(piece))
                continue
            action = _Action(piece, self._variables, self._functions)
            word = action.peek_word()
            if word in ("else", "end"):
                return tuple(nodes), action
            if word in _NOT_HERE:
                raise action.error("{{" + word + "}} is not supported")
            nodes.append(
                self._branch(action, word) if word in _KEYWORDS else Action(action.whole_pipe("command"))
            )
        return tuple(nodes), None

    def _branch(self, action: _Action, keyword: str) -> Branch:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise action.error("nested too deeply")
        scope = len(self._variables)
        action.take()
        pipe = action.whole_pipe(keyword)
        body, stop = self._nodes()
        otherwise: tuple[Node, ...] = ()
        if stop is not None and stop.peek_word() == "else":
            stop.take()
            chained = stop.peek_word()
            if chained in ("if", "with") and chained == keyword:
                otherwise, stop = (self._branch(stop, chained),), None
                del self._variables[scope:]
                self._depth -= 1
                return Branch(keyword, pipe, body, otherwise)
            stop.expect_end("else")
            otherwise, stop = self._nodes()
            if stop is not None and stop.peek_word() == "else":
                raise stop.error("expected end; found {{else}}")
        if stop is None:
            raise syntax_error(self._last_line, "unexpected EOF")
        stop.take()
        stop.expect_end("end")
        del self._variables[scope:]
        self._depth -= 1
        return Branch(keyword, pipe, body, otherwise)


class _Action:
    """The tokens of one action, read from left to right."""

    def __init__(self, action: ActionTokens, variables: list[str], functions: Set[str]) -> None:
        self._functions = functions
        self._tokens = action.tokens
        self._position = action.position
        self._variables = variables
        self._at = 0

    def error(self, message: str) -> TemplateError:
        return syntax_error(self._position.line, message)

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _skip_space(self) -> None:
        while (token := self._peek()) is not None and token.kind == "space":
            self._at += 1

    def _is_mark(self, *marks: str) -> bool:
        token = self._peek()
        return token is not None and token.kind in ("mark", "declare") and token.text in marks

    def peek_word(self) -> str:
        """The keyword or function that comes next, or nothing."""
        self._skip_space()
        token = self._peek()
        return token.text if token is not None and token.kind == "word" else ""

    def take(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def expect_end(self, context: str) -> None:
        self._skip_space()
        token = self._peek()
        if token is not None:
            raise self.error(f"unexpected <{token.text}> in {context}")

    def whole_pipe(self, context: str) -> Pipe:
        pipe = self._pipe(context)
        self.expect_end(context)
        return pipe

    def _pipe(self, context: str) -> Pipe:
        self._skip_space()
        first = self._peek()
        position = first.position if first else self._position
        variables, assigns = self._declaration(context)
        commands: list[Command] = []
        while True:
            self._skip_space()
            if self._peek() is None or self._is_mark(")"):
                break
            commands.append(self._command(context))
            if not self._is_mark("|"):
                break
            self.take()
            self._skip_space()
            if self._peek() is None or self._is_mark(")"):
                raise self.error(f"missing value for {context}")
        if not commands:
            raise self.error(f"missing value for {context}")
        if not assigns:
            self._variables.extend(variables)
        for command in commands[1:]:
            if not isinstance(command.operands[0], Function | Field | Variable | Chain):
                raise self.error("non executable command in pipeline stage 2")
        return Pipe(variables, assigns, tuple(commands), position)

    def _declaration(self, context: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =`, or in a range `$i, $x :=`; nothing is taken when there is none."""
        start, names = self._at, list[str]()
        while (token := self._peek()) is not None and token.kind == "variable":
            names.append(self.take().text)
            self._skip_space()
            if context == "range" and len(names) == 1 and self._is_mark(","):
                self.take()
                self._skip_space()
                continue
            if self._is_mark(":="):
                self.take()
                return tuple(names), False
            if self._is_mark("="):
                self.take()
                for name in names:
                    self._check_variable(name)
                return tuple(names), True
            break
        self._at = start
        return (), False

    def _check_variable(self, name: str) -> None:
        if name not in self._variables:
            raise self.error(f'undefined variable "{name}"')

    def _command(self, context: str) -> Command:
        self._skip_space()
        first = self._peek()
        position = first.position if first else self._position
        operands: list[Operand] = []
        while (token := self._peek()) is not None and not self._is_mark("|", ")"):
            operands.append(self._operand(token))
            after = self._peek()
            if after is not None and after.kind != "space" and not self._is_mark("|", ")"):
                raise self.error(f"unexpected <{after.text}> in operand")
            self._skip_space()
        if not operands:
            raise self.error(f"missing value for {context}")
        if len(operands) > 1 and not isinstance(operands[0], Function | Field | Variable | Chain):
            raise self.error(f"can't give argument to non-function {self._tokens[0].text}")
        return Command(tuple(operands), position)

    def _operand(self, token: Token) -> Operand:
        self.take()
        match token.kind:
            case "field":
                names, position = self._fields(token.position)
                return Field((token.text[1:], *names), position)
            case "variable":
                self._check_variable(token.text)
                names, position = self._fields(token.position)
                return Variable(token.text, names, position)
            case "dot":
                return Dot()
            case "word":
                return self._word(token)
            case "string" | "raw" | "char" | "number":
                return Literal(_constant(token), token.text)
            case _ if token.text == "(":
                return self._parenthesised()
            case _:
                raise self.error(f"unexpected <{token.text}> in operand")

    def _fields(self, position: Position) -> tuple[tuple[str, ...], Position]:
        """The fields that follow at once; Go reports a chain at the position of its second part."""
        names: list[str] = []
        while (token := self._peek()) is not None and token.kind == "field":
            position = token.position if not names else position
            names.append(self.take().text[1:])
        return tuple(names), position

    def _word(self, token: Token) -> Operand:
        constants: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
        if token.text in constants:
            return Literal(constants[token.text], token.text)
        if token.text not in self._functions:
            raise self.error(f'function "{token.text}" not defined')
        return Function(token.text, token.position)

    def _parenthesised(self) -> Operand:
        if self._at > _MAX_DEPTH * 50:
            raise self.error("action too long")
        inner = self._pipe("parenthesized pipeline")
        if not self._is_mark(")"):
            raise self.error("unclosed left paren")
        position = self.take().position
        names, position = self._fields(position)
        return Chain(inner, names, position) if names else inner


def _constant(token: Token) -> str | int | float:
    if token.kind == "raw":
        return token.text[1:-1]
    if token.kind == "string":
        return _unquote(token)
    if token.kind == "char":
        value = _unquote(token)
        if len(value) != 1:
            raise syntax_error(token.position.line, f"malformed character constant: {token.text}")
        return ord(value)
    text = token.text.replace("_", "")
    try:
        return int(text, 0) if text.lstrip("+-") != "0" * len(text.lstrip("+-")) else 0
    except ValueError:
        pass
    try:
        return int(text, 8) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise syntax_error(token.position.line, f'bad number syntax: "{token.text}"') from None


def _unquote(token: Token) -> str:
    body, out, at = token.text[1:-1], "", 0
    while at < len(body):
        if body[at] != "\\":
            out, at = out + body[at], at + 1
            continue
        letter = body[at + 1]
        width = {"x": 2, "u": 4, "U": 8}.get(letter)
        if width is not None:
            try:
                out += chr(int(body[at + 2 : at + 2 + width], 16))
            except (ValueError, OverflowError):
                raise syntax_error(token.position.line, f"invalid syntax: {token.text}") from None
            at += 2 + width
            continue
        out, at = out + _ESCAPES.get(letter, letter), at + 2
    return out
