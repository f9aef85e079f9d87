from __future__ import annotations

import pytest

from swarm.api.filters import has_labels, has_prefix, parse_filters
from swarm.base.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("{}", {}),
        ('{"name":{"a":true,"b":true}}', {"name": ("a", "b")}),
        ('{"name":{"a":false}}', {"name": ()}),
        ('{"name":["a","b"]}', {"name": ("a", "b")}),
        ('{"name":[true]}', {"name": ("true",)}),
    ],
)
def test_both_spellings(text: str, found: object) -> None:
    assert parse_filters(text, {"name"}) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"bogus":["a"]}', "invalid filter 'bogus'"),
        ("{", "invalid filters: not valid JSON"),
        ("[]", "invalid filters: expected a JSON object"),
        ('{"name":"a"}', "invalid filter 'name': expected a list of texts"),
        ('{"name":[{}]}', "invalid filter 'name': expected a list of texts"),
        ("[" * 100_000, "invalid filters: not valid JSON"),
    ],
)
def test_wrong_filters(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_filters(text, {"name"})
    assert str(refused.value) == message


def test_prefixes_are_alternatives_and_labels_conditions() -> None:
    assert has_prefix(("x", "we"), "web")
    assert not has_prefix(("x",), "web")
    assert has_prefix(None, "web")
    assert has_labels(("a", "b=1"), {"a": "", "b": "1"})
    assert not has_labels(("a", "b=1"), {"a": "", "b": "2"})
