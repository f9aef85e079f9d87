"""Generic resources: what a node has beyond CPU and memory, such as two GPUs by name or three licences.

Texts and stored values in, what is free and what a task gets out. Pure.
Invariant: of a kind a node has either names or a number; no name is given twice, and no more than there is.
Source: SwarmKit design/generic_resources.md, api/genericresource.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from swarm.base.errors import InvalidArgument
from swarm.model.types import DiscreteGenericResource, GenericResource, NamedGenericResource

Claims = Counter[tuple[str, str]]
"""(kind, name) -> how often taken (once), (kind, "") -> how many of a number."""


def parse_node_resources(texts: Iterable[str]) -> tuple[GenericResource, ...]:
    """What `swarmd --node-generic-resource KEY=VALUE` says the node has: a number, or one name a flag.

    Raises: InvalidArgument.
    """
    named: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    for text in texts:
        kind, found, value = (part.strip() for part in text.partition("="))
        if not (kind and found and value):
            raise InvalidArgument(f"invalid generic resource {text!r}: expected KIND=NAME or KIND=NUMBER")
        if kind in numbers or (kind in named and (value.isdecimal() or value in named[kind])):
            raise InvalidArgument(
                f"invalid generic resource {text!r}: {kind} is one number, or different names"
            )
        if value.isdecimal():
            numbers[kind] = int(value)
        else:
            named.setdefault(kind, []).append(value)
    return (
        *(_named(kind, value) for kind, values in named.items() for value in values),
        *(_number(kind, value) for kind, value in numbers.items()),
    )


def wanted_numbers(resources: Iterable[GenericResource]) -> dict[str, int]:
    """How many of each kind a task reserves; it cannot ask for one by name."""
    wanted: Counter[str] = Counter()
    for resource in resources:
        if resource.discrete_resource_spec is not None:
            wanted[resource.discrete_resource_spec.kind] += resource.discrete_resource_spec.value
    return {kind: number for kind, number in wanted.items() if number}


def claims_of(resources: Iterable[GenericResource]) -> Claims:
    """What was given to a task, to be counted."""
    claims: Claims = Counter()
    for resource in resources:
        if resource.named_resource_spec is not None:
            claims[resource.named_resource_spec.kind, resource.named_resource_spec.value] += 1
        elif resource.discrete_resource_spec is not None:
            claims[resource.discrete_resource_spec.kind, ""] += resource.discrete_resource_spec.value
    return claims


def claim(
    wanted: Mapping[str, int], offered: Iterable[GenericResource], taken: Claims
) -> tuple[GenericResource, ...] | None:
    """What a task that wants `wanted` gets of a node's `offered`; None if that is not free."""
    offers = claims_of(offered)
    given: list[GenericResource] = []
    for kind, number in wanted.items():
        names = [name for of, name in offers if of == kind and name and not taken[of, name]]
        if len(names) >= number:
            given += (_named(kind, name) for name in names[:number])
        elif offers[kind, ""] - taken[kind, ""] >= number:
            given.append(_number(kind, number))
        else:
            return None
    return tuple(given)


def _named(kind: str, value: str) -> GenericResource:
    return GenericResource(named_resource_spec=NamedGenericResource(kind=kind, value=value))


def _number(kind: str, value: int) -> GenericResource:
    return GenericResource(discrete_resource_spec=DiscreteGenericResource(kind=kind, value=value))
