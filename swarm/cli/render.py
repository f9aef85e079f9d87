"""Tables and `--format`: rows of values in, the text that Docker prints for them out. Pure.

A row maps format keys to text (or a bool). The plain table does not load the template engine.
Source: Go's text/tabwriter (columns are blocks of consecutive tab-ended cells); Docker's formatter package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarm.base.errors import InvalidArgument

Row = Mapping[str, object]

_MIN_WIDTH = 10
_PADDING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`columns` make the plain table; `headers` name every key that a template may use. A key that starts
    with `_` is for the plain table only. `type_name` is what Docker's error calls a row.
    """

    type_name: str
    columns: tuple[str, ...]
    headers: Mapping[str, str]
    quiet: str = "ID"


def render(table: Table, rows: Sequence[Row], *, template: str = "", quiet: bool = False) -> str:
    """The whole listing, with its final newline.

    Raises:
        InvalidArgument: the template is wrong.
    """
    if template in ("", "table"):
        if quiet:
            return "".join(f"{row[table.quiet]}\n" for row in rows)
        lines = ["\t".join(str(row[key]) for key in table.columns) for row in rows]
        return align("\t".join(table.headers[key] for key in table.columns) + "\n" + _joined(lines))
    if template == "json":
        return _joined([row_json(_public(row)) for row in rows])
    return _render_template(table, rows, template, quiet=quiet)


def is_table(template: str) -> bool:
    """Whether this format is aligned under headers."""
    return template == "" or template.startswith("table")


def row_json(row: Row) -> str:
    """One JSON object, keys sorted, with `<`, `>` and `&` escaped as Go does."""
    import json

    text = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def align(text: str) -> str:
    """`text` with its tabs turned into columns, at least 10 wide, 3 blanks apart."""
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[0] * (len(cells) - 1) for cells in lines]
    for column in range(max((len(w) for w in widths), default=0)):
        start = 0
        while start < len(lines):
            end = start
            while end < len(lines) and len(widths[end]) > column:
                end += 1
            if end > start:
                longest = max(len(lines[line][column]) for line in range(start, end))
                for line in range(start, end):
                    widths[line][column] = max(_MIN_WIDTH, longest + _PADDING)
            start = max(end, start + 1)
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(cells, sizes, strict=False)) + cells[-1]
        for cells, sizes in zip(lines, widths, strict=True)
    )


def _joined(lines: Sequence[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _public(row: Row) -> Row:
    return {key: value for key, value in row.items() if not key.startswith("_")}


def _render_template(table: Table, rows: Sequence[Row], template: str, *, quiet: bool) -> str:
    from swarm.model.gotemplate import Options, TemplateError, execute, parse

    tabular = is_table(template)
    body = template.removeprefix("table").strip() if tabular else template.strip()
    body = body.replace("\\t", "\t").replace("\\n", "\n")
    try:
        parsed = parse(body)
        options = Options(type_name=table.type_name)
        lines = [execute(parsed, _public(row), options) for row in rows]
        if not tabular or quiet:
            return _joined(lines)
        heads = {key: name for key, name in table.headers.items() if not key.startswith("_")}
        header = execute(parsed, heads, Options(type_name=table.type_name, header=True))
        return align(header + "\n" + _joined(lines))
    except TemplateError as error:
        raise InvalidArgument(f"template parsing error: {error}") from None
