"""Platforms: whether an image made for some platforms runs on a node, whatever each calls its processor.

Source: SwarmKit manager/scheduler/filter.go (normalizeArch).
"""

from __future__ import annotations

from swarm.model.types import Platform

_ALIASES = {"x86_64": "amd64", "aarch64": "arm64"}


def same_word(left: str, right: str) -> bool:
    """The two name one operating system or processor; uname's and Docker's names count as the same."""
    return _normal(left) == _normal(right)


def runs_on(wanted: tuple[Platform, ...], offered: Platform) -> bool:
    """No wish is met by any node, and a field left empty by any value."""
    return not wanted or any(
        (not one.os or same_word(one.os, offered.os))
        and (not one.architecture or same_word(one.architecture, offered.architecture))
        for one in wanted
    )


def _normal(word: str) -> str:
    lowered = word.lower()
    return _ALIASES.get(lowered, lowered)
