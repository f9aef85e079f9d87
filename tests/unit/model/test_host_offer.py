from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model.host_offer import parse_labels


def test_labels_of_a_host() -> None:
    assert parse_labels(["rack=1", "ssd", "note=a=b", "rack=1"]) == {"rack": "1", "ssd": "", "note": "a=b"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["=x"], "invalid label '=x': expected KEY=VALUE"),
        (["a=1", "a=2"], "conflicting labels for a=1 and a=2"),
    ],
)
def test_labels_that_cannot_be(texts: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_labels(texts)
    assert str(caught.value) == message
