"""Our own subset of Go's text/template, for `--format` and for templates in service specs.

In: a template's text and plain values (dict, list, str, int, float, bool, None). Out: text, or TemplateError
with the wording of Go's package. There are fields, variables, pipes, `if`, `else if`, `with`, `range`,
comments, trim markers, and the functions of Go and of the Docker command; there is no `define`, `template`,
`block` or `call`.

Invariant: a template reads values only by key and index. It reaches no attribute or method of a Python
object, and its steps and output are bounded, so one that a user wrote may run on a manager.

Source: the documentation of Go's text/template and fmt packages.
"""

from __future__ import annotations

from swarm.model.gotemplate.execute import Limits, Options, execute
from swarm.model.gotemplate.nodes import Template, TemplateError
from swarm.model.gotemplate.parser import parse

__all__ = ["Limits", "Options", "Template", "TemplateError", "execute", "parse", "render"]


def render(text: str, data: object, options: Options | None = None) -> str:
    """Parse `text` and execute it on `data`."""
    return execute(parse(text), data, options)
