"""Secrets and configs that are templates: `{{ secret "x" }}`, `{{ env "Z" }}`, `{{ .Task.Slot }}`.

In: a template's bytes, and what it may name. Out: the bytes that one task gets. Pure.
Invariant: only what the task itself references can be named, by target or by name; what was named is put in
as it is, so no template reaches further. Errors say where, never what: the text itself may be a secret.
Source: SwarmKit template/context.go, getter.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from swarm.base.errors import InvalidArgument
from swarm.model.gotemplate import Limits, Options, TemplateError, execute, parse
from swarm.model.gotemplate.functions import Builtin
from swarm.model.task_template import TemplateContext, names_in

DRIVER = "golang"
_POSITION = re.compile(r"template: :(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What functions of the template give, by name."""

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    configs: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict)


class _Missing(InvalidArgument):
    """A template names what its task does not have."""


def check_payload_template(what: str, data: bytes) -> None:
    """Raises InvalidArgument for a text that is no template. `what` names it: `config site`."""
    try:
        parse(data.decode(), _FUNCTIONS)
    except (TemplateError, UnicodeError) as error:
        raise _broken(what, error) from None


def expand_payload(
    what: str, data: bytes, context: TemplateContext, sources: Sources, limit_bytes: int
) -> bytes:
    """What a task gets. Raises: InvalidArgument."""
    functions = {
        "secret": Builtin(_lookup("secret target", {n: _text(v) for n, v in sources.secrets.items()}), 1, 1),
        "config": Builtin(_lookup("config target", {n: _text(v) for n, v in sources.configs.items()}), 1, 1),
        "env": Builtin(lambda name: sources.env.get(_word(name), ""), 1, 1),
    }
    options = Options(
        type_name="template.PayloadContext", limits=Limits(output=limit_bytes), functions=functions
    )
    try:
        found = execute(parse(data.decode(), _FUNCTIONS), names_in(context), options)
        expanded = found.encode(errors="surrogateescape")
    except _Missing as error:
        raise InvalidArgument(f"expanding {what} failed: {error}") from None
    except (TemplateError, UnicodeError) as error:
        raise _broken(what, error) from None
    if len(expanded) > limit_bytes:
        raise InvalidArgument(f"expanding {what} failed: more than {limit_bytes} bytes")
    return expanded


_FUNCTIONS = frozenset({"secret", "config", "env"})


def _lookup(noun: str, known: Mapping[str, str]) -> Callable[[object], str]:
    def look_up(name: object) -> str:
        try:
            return known[_word(name)]
        except KeyError:
            raise _Missing(f"{noun} {_word(name)[:64]} not found") from None

    return look_up


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def _text(data: bytes) -> str:
    """Of what is put in: bytes that are no UTF-8 come through as they are."""
    return data.decode(errors="surrogateescape")


def _broken(what: str, error: Exception) -> InvalidArgument:
    found = _POSITION.search(str(error))
    where = f" at line {found.group(1)}" if found else ""
    return InvalidArgument(f"expanding {what} failed: the template is not valid{where}")
