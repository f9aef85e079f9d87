"""Dataclass <-> protobuf message, by descriptor: `encode(obj)` and `decode(cls, message)`.

A dataclass of `swarm.model` has a message of the same name whose fields have the same names (a trailing
underscore dropped). Converters are compiled once per class. Absent messages become None where the dataclass
allows None, and the field's own default otherwise; so fields added later read as their defaults.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.message import Message

from swarm.proto.gen import model_pb2

T = TypeVar("T")
Setter = Callable[[Any, Any], None]
Getter = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_WRITERS: dict[type, tuple[tuple[str, Setter], ...]] = {}
_READERS: dict[type, tuple[tuple[str, Getter], ...]] = {}


def encode(value: Any) -> Any:
    """The protobuf message of a `swarm.model` dataclass."""
    message = _message_class(type(value))()
    encode_into(value, message)
    return message


def encode_into(value: Any, message: Message) -> None:
    for name, write in _writers(type(value)):
        write(message, getattr(value, name))


def decode(kind: type[T], message: Message) -> T:
    """The dataclass that a message stands for."""
    return kind(**{name: read(message) for name, read in _readers(kind)})


def dumps(value: Any) -> bytes:
    """Stored bytes of a dataclass."""
    data: bytes = encode(value).SerializeToString()
    return data


def loads(kind: type[T], data: bytes) -> T:
    return decode(kind, _message_class(kind).FromString(data))


def _message_class(kind: type) -> Any:
    return getattr(model_pb2, kind.__name__)


def _fields(kind: type) -> tuple[tuple[str, str, Any, Any], ...]:
    """(attribute, message field, type, default) of each field."""
    hints = typing.get_type_hints(kind)
    return tuple((f.name, f.name.rstrip("_"), hints[f.name], f) for f in dataclasses.fields(kind))


def _writers(kind: type) -> tuple[tuple[str, Setter], ...]:
    if kind not in _WRITERS:
        _WRITERS[kind] = tuple(
            (name, _writer(wire, _Shape.of(hint))) for name, wire, hint, _ in _fields(kind)
        )
    return _WRITERS[kind]


def _readers(kind: type) -> tuple[tuple[str, Getter], ...]:
    if kind not in _READERS:
        _READERS[kind] = tuple(
            (name, _reader(wire, _Shape.of(hint), f)) for name, wire, hint, f in _fields(kind)
        )
    return _READERS[kind]


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """A field's type taken apart: what one value is, and how many there may be."""

    item: Any
    optional: bool = False
    repeated: bool = False
    mapping: bool = False

    @staticmethod
    def of(hint: Any) -> _Shape:
        origin = typing.get_origin(hint)
        if origin in (typing.Union, types.UnionType):
            (inner,) = (a for a in typing.get_args(hint) if a is not type(None))
            return dataclasses.replace(_Shape.of(inner), optional=True)
        if origin is tuple:
            return _Shape(_plain(typing.get_args(hint)[0]), repeated=True)
        if origin is Mapping:
            return _Shape(str, mapping=True)
        return _Shape(_plain(hint))

    @property
    def is_message(self) -> bool:
        return dataclasses.is_dataclass(self.item) or self.item in (datetime, timedelta)


def _plain(hint: Any) -> Any:
    return getattr(hint, "__supertype__", hint)


def _to_wire(item: Any) -> Callable[[Any], Any]:
    if isinstance(item, type) and issubclass(item, Enum):
        return lambda value: value.value
    return lambda value: value


def _from_wire(item: Any) -> Callable[[Any], Any]:
    if isinstance(item, type) and issubclass(item, Enum):
        return item
    return lambda value: value


def _fill(item: Any) -> Callable[[Any, Any], None]:
    """How a value of a message type is written into its message."""
    if item is datetime:
        return _fill_timestamp
    if item is timedelta:
        return _fill_duration
    return lambda message, value: encode_into(value, message)


def _fill_timestamp(message: Any, value: datetime) -> None:
    microseconds = (value - _EPOCH) // _MICROSECOND
    message.seconds, rest = divmod(microseconds, 1_000_000)
    message.nanos = rest * 1000
    message.SetInParent()


def _fill_duration(message: Any, value: timedelta) -> None:
    microseconds = value // _MICROSECOND
    sign = -1 if microseconds < 0 else 1
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    message.seconds = sign * seconds
    message.nanos = sign * rest * 1000
    message.SetInParent()


def _parse(item: Any) -> Callable[[Any], Any]:
    if item is datetime:
        return lambda m: _EPOCH + timedelta(seconds=m.seconds, microseconds=m.nanos // 1000)
    if item is timedelta:
        return lambda m: timedelta(seconds=m.seconds, microseconds=m.nanos / 1000)
    return lambda m: decode(item, m)


def _writer(wire: str, shape: _Shape) -> Setter:
    if shape.mapping:
        return lambda message, value: getattr(message, wire).update(value)
    if shape.is_message:
        fill = _fill(shape.item)
        if shape.repeated:
            return lambda message, value: _fill_all(getattr(message, wire), value, fill)
        return lambda message, value: _fill_one(message, wire, value, fill)
    convert = _to_wire(shape.item)
    if shape.repeated:
        return lambda message, value: getattr(message, wire).extend([convert(v) for v in value])
    if shape.optional:
        return lambda message, value: None if value is None else setattr(message, wire, convert(value))
    return lambda message, value: setattr(message, wire, convert(value))


def _fill_all(field: Any, values: Any, fill: Callable[[Any, Any], None]) -> None:
    for value in values:
        fill(field.add(), value)


def _fill_one(message: Any, wire: str, value: Any, fill: Callable[[Any, Any], None]) -> None:
    if value is not None:
        field = getattr(message, wire)
        field.SetInParent()
        fill(field, value)


def _default(f: Any) -> Callable[[], Any]:
    if f.default_factory is not dataclasses.MISSING:
        factory: Callable[[], Any] = f.default_factory
        return factory
    return lambda: None if f.default is dataclasses.MISSING else f.default


def _reader(wire: str, shape: _Shape, f: Any) -> Getter:
    if shape.mapping:
        return lambda message: dict(getattr(message, wire))
    if shape.is_message:
        parse = _parse(shape.item)
        if shape.repeated:
            return lambda message: tuple(parse(m) for m in getattr(message, wire))
        absent: Callable[[], Any] = (lambda: None) if shape.optional else _default(f)
        return lambda message: parse(getattr(message, wire)) if message.HasField(wire) else absent()
    convert = _from_wire(shape.item)
    if shape.repeated:
        return lambda message: tuple(convert(v) for v in getattr(message, wire))
    if shape.optional:
        return lambda message: convert(getattr(message, wire)) if message.HasField(wire) else None
    return lambda message: convert(getattr(message, wire))
