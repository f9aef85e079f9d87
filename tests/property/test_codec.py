"""Every model class survives the trip to bytes and back."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.model import dataplane, objects, specs, types
from swarm.proto import codec
from swarm.proto.gen import model_pb2

CLASSES = [
    cls
    for module in (types, specs, objects, dataplane)
    for cls in vars(module).values()
    if dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
]

TEXT = st.text(max_size=8)


def values(hint):
    hint = getattr(hint, "__supertype__", hint)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=2).map(tuple)
    if origin is Mapping:
        return st.dictionaries(TEXT, TEXT, max_size=2)
    if origin is not None:
        return st.none() | values(next(a for a in typing.get_args(hint) if a is not type(None)))
    if dataclasses.is_dataclass(hint):
        return instances(hint)
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    simple = {
        bool: st.booleans(),
        int: st.integers(-(2**62), 2**62),
        float: st.floats(allow_nan=False),
        str: TEXT,
        bytes: st.binary(max_size=8),
        datetime: st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
        timedelta: st.timedeltas(timedelta(days=-10), timedelta(days=1000)),
    }
    return simple[hint]


def instances(cls):
    hints = typing.get_type_hints(cls)
    return st.deferred(
        lambda: st.builds(cls, **{f.name: values(hints[f.name]) for f in dataclasses.fields(cls)})
    )


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_round_trip(cls):
    @settings(max_examples=15)
    @given(instances(cls))
    def check(value):
        assert codec.loads(cls, codec.dumps(value)) == value

    check()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_message_has_exactly_the_fields_of_its_class(cls):
    wire = {f.name for f in getattr(model_pb2, cls.__name__).DESCRIPTOR.fields}
    assert wire == {f.name.rstrip("_") for f in dataclasses.fields(cls)}


def test_absent_fields_read_as_the_defaults_of_the_class():
    assert codec.loads(specs.ClusterSpec, b"").heartbeat_period == timedelta(seconds=1)
