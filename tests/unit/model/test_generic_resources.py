from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model.generic_resources import Claims, claim, claims_of, parse_node_resources, wanted_numbers
from swarm.model.types import DiscreteGenericResource, GenericResource, NamedGenericResource

OFFERED = parse_node_resources(["gpu=A", "gpu=B", "licence=3"])


def named(kind: str, value: str) -> GenericResource:
    return GenericResource(named_resource_spec=NamedGenericResource(kind=kind, value=value))


def number(kind: str, value: int) -> GenericResource:
    return GenericResource(discrete_resource_spec=DiscreteGenericResource(kind=kind, value=value))


def test_what_a_node_says_it_has() -> None:
    assert (named("gpu", "A"), named("gpu", "B"), number("licence", 3)) == OFFERED


@pytest.mark.parametrize(
    "texts",
    [
        ["gpu"],
        ["=A"],
        ["gpu="],
        ["gpu=1", "gpu=2"],
        ["gpu=A", "gpu=A"],
        ["gpu=A", "gpu=2"],
        ["gpu=2", "gpu=A"],
    ],
)
def test_what_a_node_cannot_have(texts: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="invalid generic resource"):
        parse_node_resources(texts)


def test_a_claim_takes_what_is_free() -> None:
    assert claim({"gpu": 2, "licence": 1}, OFFERED, Claims()) == (
        named("gpu", "A"),
        named("gpu", "B"),
        number("licence", 1),
    )
    taken = claims_of([named("gpu", "A"), number("licence", 2)])
    assert claim({"gpu": 1, "licence": 1}, OFFERED, taken) == (named("gpu", "B"), number("licence", 1))
    assert claim({"gpu": 2}, OFFERED, taken) is None
    assert claim({"licence": 2}, OFFERED, taken) is None
    assert claim({"fpga": 1}, OFFERED, Claims()) is None


def test_a_task_asks_for_numbers() -> None:
    assert wanted_numbers([number("gpu", 1), number("gpu", 2), number("x", 0)]) == {"gpu": 3}
