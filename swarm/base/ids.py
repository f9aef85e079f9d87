"""Identifiers. The only module that reads the system's randomness for names.

Swarm objects carry 25 characters of base 36 from 128 random bits, as SwarmKit's identity package does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NewType

NodeID = NewType("NodeID", str)
ServiceID = NewType("ServiceID", str)
TaskID = NewType("TaskID", str)
NetworkID = NewType("NetworkID", str)
ClusterID = NewType("ClusterID", str)
SecretID = NewType("SecretID", str)
ConfigID = NewType("ConfigID", str)

IdSource = Callable[[], str]

ID_LENGTH = 25
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int, width: int) -> str:
    """`number` in base 36, padded with zeros on the left to `width` characters."""
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits)).rjust(width, "0")


def new_id() -> str:
    """A fresh id: 25 characters of base 36, 128 random bits."""
    return base36(secrets.randbits(128), ID_LENGTH)


def is_id(text: str) -> bool:
    return len(text) == ID_LENGTH and all(c in _ALPHABET for c in text)


class SequentialIds:
    """An id source for tests: `prefix` and a counter, padded to the usual length."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._next = 0

    def __call__(self) -> str:
        self._next += 1
        return f"{self._prefix}{self._next:0{ID_LENGTH - len(self._prefix)}d}"
