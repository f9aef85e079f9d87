"""A figure and its target, and the table of all of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEADER = ("FIGURE", "MEASURED", "PEER", "RATIO", "TARGET", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. With a `peer` the target is about the ratio, else about the figure itself."""

    name: str
    measured: float
    unit: str
    peer: float | None = None
    """The same work without us, measured in the same run."""
    at_most: float | None = None
    at_least: float | None = None
    """Neither: the figure is there to be known, and cannot miss."""

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.measured / self.peer

    @property
    def is_met(self) -> bool:
        value = self.measured if self.ratio is None else self.ratio
        too_much = self.at_most is not None and value > self.at_most
        too_little = self.at_least is not None and value < self.at_least
        return not (too_much or too_little)


def table(figures: Sequence[Figure]) -> str:
    rows = [HEADER, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    unit = figure.unit if figure.ratio is None else "x"
    limit, sign = (figure.at_most, "<=") if figure.at_most is not None else (figure.at_least, ">=")
    return (
        figure.name,
        _amount(figure.measured, figure.unit),
        "" if figure.peer is None else _amount(figure.peer, figure.unit),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if limit is None else f"{sign} {limit:g} {unit}",
        "" if limit is None else "ok" if figure.is_met else "MISS",
    )


def _amount(value: float, unit: str) -> str:
    return f"{value:,.{2 if value < 10 else 0}f} {unit}"
