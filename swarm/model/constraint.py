"""Placement constraints: text in, parsed constraints and their verdict on a node out.

Docker's `KEY==VALUE` and `KEY!=VALUE`; ours are `KEY in (A, B)`, `KEY not in (A, B)`, `KEY [!]exists`.
Invariant: a constraint that parses can match some node; an unknown key or a malformed address is refused when
the user writes it and not silently never matched. Values are compared whole and without case, label keys with
case, and a label that is missing has the value "".
Source: SwarmKit manager/constraint/constraint.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network

from swarm.base.errors import InvalidArgument
from swarm.model.objects import Node
from swarm.model.platform import same_word
from swarm.model.types import Placement

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
_MEMBER = re.compile(r"(\S+)\s+(not\s+)?in\s*\((.*)\)", re.IGNORECASE | re.DOTALL)
_PRESENT = re.compile(r"(\S+)\s+(!\s*)?exists", re.IGNORECASE)


class Test(StrEnum):
    EQUAL = "equal"
    """To one of the values."""
    EXISTS = "exists"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    key: str
    test: Test
    values: tuple[str, ...] = ()
    is_negated: bool = False


def parse_constraints(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Parse what the user wrote.

    Raises:
        InvalidArgument: no operator, an unknown key, or a value that cannot be.
    """
    return tuple(_parse(text) for text in texts)


def check_placement(placement: Placement) -> None:
    """Raises InvalidArgument for what cannot be meant."""
    if placement.max_replicas < 0:
        raise InvalidArgument("invalid max replicas per node: must not be negative")
    parse_constraints(placement.constraints)
    for preference in placement.preferences:
        descriptor = preference.spread.spread_descriptor if preference.spread else ""
        if not is_label(descriptor):
            raise InvalidArgument(
                f"placement preference spread={descriptor} is not possible: "
                f"spread over {NODE_LABEL}KEY or {ENGINE_LABEL}KEY"
            )


def satisfies(texts: tuple[str, ...], node: Node) -> bool:
    """Whether `node` meets every constraint. Text that does not parse is met by no node."""
    if not texts:
        return True
    try:
        constraints = _parse_once(texts)
    except InvalidArgument:
        return False
    return all(_matches(constraint, node) for constraint in constraints)


def is_label(key: str) -> bool:
    """Whether `key` names a label of nodes or engines."""
    lowered = key.lower()
    return any(lowered.startswith(p) and len(lowered) > len(p) for p in (NODE_LABEL, ENGINE_LABEL))


def label_of(node: Node, key: str) -> str | None:
    """The node's label that `key` names, None where it has no such label."""
    if key.lower().startswith(NODE_LABEL):
        return node.spec.labels.get(key[len(NODE_LABEL) :])
    return node.description.engine.labels.get(key[len(ENGINE_LABEL) :])


@lru_cache(maxsize=1024)
def _parse_once(texts: tuple[str, ...]) -> tuple[Constraint, ...]:
    return parse_constraints(texts)


def _parse(text: str) -> Constraint:
    text = text.strip()
    constraint = _parse_ours(text) or _parse_dockers(text)
    _check_key(constraint.key)
    for value in constraint.values:
        _check_value(constraint.key, value)
    return constraint


def _parse_ours(text: str) -> Constraint | None:
    found = _MEMBER.fullmatch(text)
    if found and _KEY.fullmatch(found[1]):
        values = tuple(value.strip() for value in found[3].split(","))
        return Constraint(key=found[1], test=Test.EQUAL, values=values, is_negated=bool(found[2]))
    found = _PRESENT.fullmatch(text)
    if found and _KEY.fullmatch(found[1]):
        return Constraint(key=found[1], test=Test.EXISTS, is_negated=bool(found[2]))
    return None


def _parse_dockers(text: str) -> Constraint:
    for operator in OPERATORS:
        left, found, right = text.partition(operator)
        if found:
            return Constraint(
                key=left.strip(), test=Test.EQUAL, values=(right.strip(),), is_negated=operator == "!="
            )
    raise InvalidArgument(f"constraint expected one operator from {', '.join(OPERATORS)}")


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise InvalidArgument(f"key '{key}' is invalid")
    if not is_label(key) and key.lower() not in KEYS:
        known = ", ".join((*KEYS, f"{NODE_LABEL}KEY", f"{ENGINE_LABEL}KEY"))
        raise InvalidArgument(f"constraint key '{key}' is unknown, use one of {known}")


def _check_value(key: str, value: str) -> None:
    if not _VALUE.fullmatch(value):
        raise InvalidArgument(f"value '{value}' is invalid")
    if key.lower() == "node.ip":
        try:
            ip_network(value, strict=False)
        except ValueError as error:
            raise InvalidArgument(f"value '{value}' is invalid: node.ip takes an address or CIDR") from error


def _matches(constraint: Constraint, node: Node) -> bool:
    if constraint.test is Test.EXISTS:
        return _exists(constraint.key, node) != constraint.is_negated
    is_met = any(_equals(constraint.key, node, value) for value in constraint.values)
    return is_met != constraint.is_negated


def _exists(key: str, node: Node) -> bool:
    return label_of(node, key) is not None if is_label(key) else bool(_attribute(node, key.lower()))


def _equals(key: str, node: Node, value: str) -> bool:
    if is_label(key):
        return (label_of(node, key) or "").lower() == value.lower()
    lowered = key.lower()
    if lowered == "node.ip":
        return _has_address(node, value)
    if lowered == "node.platform.arch":
        return same_word(node.description.platform.architecture, value)
    return _attribute(node, lowered).lower() == value.lower()


def _attribute(node: Node, key: str) -> str:
    attributes: dict[str, str] = {
        "node.id": node.id,
        "node.hostname": node.description.hostname,
        "node.role": node.spec.role,
        "node.ip": node.status.addr,
        "node.platform.os": node.description.platform.os,
        "node.platform.arch": node.description.platform.architecture,
    }
    return attributes[key]


def _has_address(node: Node, value: str) -> bool:
    try:
        return ip_address(node.status.addr) in ip_network(value, strict=False)
    except ValueError:
        return False
