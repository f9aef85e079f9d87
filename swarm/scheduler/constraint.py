"""Placement constraints: text in, parsed constraints and their verdict on a node out.

Invariant: a constraint that parses can match some node; an unknown key or a malformed address is refused when
the user writes it and not silently never matched. Values are compared whole and without case, label keys with
case, and a label that is missing has the value "".
Source: SwarmKit manager/constraint/constraint.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

from swarm.base.errors import InvalidArgument
from swarm.model.objects import Node
from swarm.scheduler.platform import same_word

OPERATORS = ("==", "!=")
NODE_LABEL = "node.labels."
ENGINE_LABEL = "engine.labels."
KEYS = (
    "node.id",
    "node.hostname",
    "node.role",
    "node.ip",
    "node.platform.os",
    "node.platform.arch",
)

_KEY = re.compile(r"[a-z_][a-z0-9\-_./]+", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    key: str
    value: str
    is_equal: bool


def parse_constraints(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Parse what the user wrote.

    Raises:
        InvalidArgument: no operator, an unknown key, or a value that cannot be.
    """
    return tuple(_parse(text) for text in texts)


def satisfies(texts: tuple[str, ...], node: Node) -> bool:
    """Whether `node` meets every constraint. Text that does not parse is met by no node."""
    try:
        constraints = _parse_once(texts)
    except InvalidArgument:
        return False
    return all(_matches(constraint, node) for constraint in constraints)


@lru_cache(maxsize=1024)
def _parse_once(texts: tuple[str, ...]) -> tuple[Constraint, ...]:
    return parse_constraints(texts)


def _parse(text: str) -> Constraint:
    for operator in OPERATORS:
        left, found, right = text.partition(operator)
        if found:
            key, value = left.strip(), right.strip()
            _check(key, value)
            return Constraint(key=key, value=value, is_equal=operator == "==")
    raise InvalidArgument(f"constraint expected one operator from {', '.join(OPERATORS)}")


def _check(key: str, value: str) -> None:
    if not _KEY.fullmatch(key):
        raise InvalidArgument(f"key '{key}' is invalid")
    if not _VALUE.fullmatch(value):
        raise InvalidArgument(f"value '{value}' is invalid")
    lowered = key.lower()
    is_label = any(lowered.startswith(p) and len(lowered) > len(p) for p in (NODE_LABEL, ENGINE_LABEL))
    if not is_label and lowered not in KEYS:
        known = ", ".join((*KEYS, f"{NODE_LABEL}KEY", f"{ENGINE_LABEL}KEY"))
        raise InvalidArgument(f"constraint key '{key}' is unknown, use one of {known}")
    if lowered == "node.ip":
        try:
            ip_network(value, strict=False)
        except ValueError as error:
            raise InvalidArgument(f"value '{value}' is invalid: node.ip takes an address or CIDR") from error


def _matches(constraint: Constraint, node: Node) -> bool:
    key = constraint.key.lower()
    if key == "node.ip":
        return _has_address(node, constraint.value) == constraint.is_equal
    if key == "node.platform.arch":
        return same_word(node.description.platform.architecture, constraint.value) == constraint.is_equal
    return (_attribute(node, key, constraint.key).lower() == constraint.value.lower()) == constraint.is_equal


def _attribute(node: Node, key: str, original_key: str) -> str:
    if key.startswith(NODE_LABEL):
        return node.spec.labels.get(original_key[len(NODE_LABEL) :], "")
    if key.startswith(ENGINE_LABEL):
        return node.description.engine.labels.get(original_key[len(ENGINE_LABEL) :], "")
    attributes: dict[str, str] = {
        "node.id": node.id,
        "node.hostname": node.description.hostname,
        "node.role": node.spec.role,
        "node.platform.os": node.description.platform.os,
    }
    return attributes[key]


def _has_address(node: Node, value: str) -> bool:
    try:
        return ip_address(node.status.addr) in ip_network(value, strict=False)
    except ValueError:
        return False
