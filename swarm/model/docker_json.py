"""Specs and values to and from the JSON that Docker's clients speak.

In: dataclasses of `swarm.model`, or decoded JSON. Out: the other one. One naming table, no per-class code but
the table of exceptions: `nano_cpus` is `NanoCPUs`; durations are nanoseconds, bytes base64, times RFC 3339.

Invariant: `decode(cls, encode(x)) == x`, and a field that this version would ignore is refused unless its
value says nothing (null, false, 0, "", [], {}) or is what we do anyway. Source: Docker Engine API 1.50.
"""

from __future__ import annotations

import base64
import binascii
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from swarm.base.errors import InvalidArgument
from swarm.model.container import Driver, Ulimit
from swarm.model.objects import ContainerStatus
from swarm.model.specs import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    FileTarget,
    NodeSpec,
    ReplicatedJob,
    ReplicatedMode,
    SecretReference,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.types import (
    Endpoint,
    EndpointSpec,
    Mount,
    NetworkAttachmentConfig,
    NodeDescription,
    PortConfig,
    ResourceRequirements,
    RestartPolicy,
    SpreadOver,
    UpdateConfig,
    UpdateStatus,
    Version,
    VirtualIP,
)

Json = dict[str, Any]
T = TypeVar("T")

_WORDS = {
    "id": "ID",
    "ids": "IDs",
    "ip": "IP",
    "cpus": "CPUs",
    "os": "OS",
    "pid": "PID",
    "tls": "TLS",
    "ips": "IPs",
    "tty": "TTY",
    "dns": "DNS",
    "uid": "UID",
    "gid": "GID",
}

_ALWAYS: dict[type, frozenset[str]] = {
    ServiceSpec: frozenset({"name", "labels", "task_template", "mode"}),
    TaskSpec: frozenset({"container_spec", "force_update"}),
    ReplicatedMode: frozenset({"replicas"}),
    ReplicatedJob: frozenset({"max_concurrent", "total_completions"}),
    Version: frozenset({"index"}),
    ResourceRequirements: frozenset({"limits", "reservations"}),
    RestartPolicy: frozenset({"condition", "delay", "max_attempts", "window"}),
    PortConfig: frozenset({"protocol", "target_port", "publish_mode"}),
    Mount: frozenset({"type", "target"}),
    NodeSpec: frozenset({"labels", "role", "availability"}),
    NodeDescription: frozenset({"hostname", "platform", "resources", "engine", "tls_info"}),
    Endpoint: frozenset({"spec"}),
    VirtualIP: frozenset({"network_id", "addr"}),
    NetworkAttachmentConfig: frozenset({"target"}),
    ContainerStatus: frozenset({"container_id", "pid", "exit_code"}),
    UpdateConfig: frozenset({"parallelism", "max_failure_ratio", "order"}),
    UpdateStatus: frozenset({"state"}),
    Ulimit: frozenset({"name", "soft", "hard"}),
    SpreadOver: frozenset({"spread_descriptor"}),
    Driver: frozenset({"name"}),
    FileTarget: frozenset({"name", "uid", "gid", "mode"}),
    SecretReference: frozenset({"secret_id", "secret_name"}),
    ConfigReference: frozenset({"config_id", "config_name"}),
    SecretSpec: frozenset({"name", "labels"}),
    ConfigSpec: frozenset({"name", "labels"}),
}
"""Fields that are sent even when they say nothing: clients read them unguarded."""

_INTERNAL: dict[type, frozenset[str]] = {
    NodeDescription: frozenset({"data_path_address", "subnets"}),
    ContainerSpec: frozenset({"pull_options"}),
}
"""Fields that are ours alone."""

_UPDATE_DEFAULTS: Json = {
    "Parallelism": 1,
    "FailureAction": "pause",
    "Monitor": 5_000_000_000,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}

_MEANINGLESS: dict[tuple[type, str], tuple[Any, ...]] = {
    (TaskSpec, "Runtime"): ("container",),
    (ContainerSpec, "Isolation"): ("default",),
}
"""Unknown fields with values that ask for what is done anyway."""

_STRICT = frozenset({ServiceMode})
"""Here an unknown field means something even when it is `{}` (`GlobalJob`)."""

_INT64_MAX = 2**63 - 1
_NANOSECONDS = 1000


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: str
    hint: Any
    always: bool
    optional: bool
    """None says nothing, everything else does."""


def json_name(field_name: str) -> str:
    """`nano_cpus` -> `NanoCPUs`."""
    words = field_name.rstrip("_").split("_")
    return "".join(_WORDS.get(word, word.capitalize()) for word in words)


@cache
def _fields(cls: type) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls)
    always, internal = _ALWAYS.get(cls, frozenset()), _INTERNAL.get(cls, frozenset())
    return tuple(
        _Field(f.name, json_name(f.name), hints[f.name], f.name in always, f.default is None)
        for f in fields(cls)
        if f.name not in internal
    )


# --- out ------------------------------------------------------------------------------------------------


def encode(value: object) -> Any:  # noqa: ANN401 - JSON has no narrower type
    """The JSON of a model value; fields that say nothing are left out unless clients need them."""
    return _encoder(type(value))(value)


def _encoder(kind: type) -> Callable[[Any], Any]:
    found = _ENCODERS.get(kind)
    if found is None:
        found = _ENCODERS[kind] = _make_encoder(kind)
    return found


def _make_encoder(kind: type) -> Callable[[Any], Any]:
    if is_dataclass(kind):
        return _object_encoder(_fields(kind))
    for base, convert in _TO_JSON.items():
        if issubclass(kind, base):
            return convert
    raise TypeError(f"no JSON for {kind.__name__}")


def _object_encoder(plan: tuple[_Field, ...]) -> Callable[[object], Json]:
    def write(value: object) -> Json:
        found: Json = {}
        for field in plan:
            item = getattr(value, field.name)
            if field.always or (item is not None if field.optional else _says_something(item)):
                found[field.key] = _encoder(type(item))(item)
        return found

    return write


def _says_something(item: object) -> bool:
    return is_dataclass(item) or bool(item)


def _nanoseconds(value: timedelta) -> int:
    return ((value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds) * _NANOSECONDS


def timestamp(value: datetime | None) -> str:
    """RFC 3339 with nanoseconds, in UTC; Go's zero time for none."""
    if value is None:
        return "0001-01-01T00:00:00Z"
    return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "000Z"


def _same(value: object) -> object:
    return value


_ENCODERS: dict[type, Callable[[Any], Any]] = {}
_TO_JSON: dict[type, Callable[[Any], Any]] = {
    StrEnum: lambda value: value.value,
    str: _same,
    int: _same,
    float: _same,
    types.NoneType: _same,
    timedelta: _nanoseconds,
    datetime: timestamp,
    bytes: lambda value: base64.b64encode(value).decode(),
    tuple: lambda value: [encode(item) for item in value],
    Mapping: dict,
}


# --- in -------------------------------------------------------------------------------------------------


def decode(cls: type[T], value: object, path: str = "") -> T:
    """The `cls` that a client's JSON means; `path` names the place of `value` in the request.

    Raises:
        InvalidArgument: a wrong type, a value out of range, or a field that this version does not know.
    """
    found: T = _decoder(cls)(value, path)
    return found


Decoder = Callable[[Any, str], Any]
_DECODERS: dict[object, Decoder] = {}


def _decoder(hint: object) -> Decoder:
    found = _DECODERS.get(hint)
    if found is None:
        found = _DECODERS[hint] = _make_decoder(hint)
    return found


def _make_decoder(hint: object) -> Decoder:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return _decoder(inner)
    if origin is tuple:
        return _tuple_decoder(_decoder(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _labels
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value, path: _object(hint, value, path)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda value, path: _word(hint, value, path)
    return _SCALARS[getattr(hint, "__supertype__", hint)]


def _object(cls: type, value: object, path: str) -> object:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    known = _fields_by_lower_key(cls)
    arguments: dict[str, Any] = {}
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        field = known.get(key.lower())
        if field is None:
            _refuse_unknown(cls, key, item, where)
        elif item is not None and not (item == "" and _has_default(cls, field.name)):
            arguments[field.name] = _decoder(field.hint)(item, where)
    return cls(**arguments)


@cache
def _fields_by_lower_key(cls: type) -> dict[str, _Field]:
    """Go reads keys in any case, and docker-py relies on it: it sends `replicated`."""
    return {field.key.lower(): field for field in _fields(cls)}


@cache
def _has_default(cls: type, name: str) -> bool:
    return any(
        f.name == name and (f.default is not MISSING or f.default_factory is not MISSING) for f in fields(cls)
    )


def _refuse_unknown(cls: type, key: str, item: object, where: str) -> None:
    nothing = item is None if cls in _STRICT else _is_nothing(item)
    if not nothing and item not in _MEANINGLESS.get((cls, key), ()):
        raise InvalidArgument(f"{where} is not supported by this version")


def _is_nothing(item: object) -> bool:
    """Null, false, 0, an empty text, and lists and objects of nothing else."""
    if isinstance(item, dict):
        return all(_is_nothing(inner) for inner in item.values())
    if isinstance(item, list):
        return not item
    return not item


def _tuple_decoder(inner: Decoder) -> Decoder:
    def read(value: object, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        return tuple(inner(item, f"{path}[{index}]") for index, item in enumerate(value))

    return read


def _labels(value: object, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(path, "an object of texts", value)
    return {_text(key, path): _text(item, f"{path}.{key}") for key, item in value.items()}


def _word(cls: type[StrEnum], value: object, path: str) -> StrEnum:
    text = _text(value, path)
    try:
        return cls(text)
    except ValueError:
        allowed = ", ".join(member.value for member in cls)
        raise InvalidArgument(f'invalid {path}: "{text}": must be one of {allowed}') from None


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, "a text", value)
    if "\0" in value:
        raise InvalidArgument(f"invalid {path}: a text must not contain NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"invalid {path}: not valid Unicode") from None
    return value


def _integer(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(path, "a whole number", value)
    if not -_INT64_MAX <= value <= _INT64_MAX:
        raise InvalidArgument(f"invalid {path}: {value} is out of range")
    return value


def _ratio(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(path, "a number", value)
    return float(value)


def _boolean(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "true or false", value)
    return value


def _duration(value: object, path: str) -> timedelta:
    return timedelta(microseconds=_integer(value, path) // _NANOSECONDS)


def _bytes(value: object, path: str) -> bytes:
    try:
        return base64.b64decode(_text(value, path), validate=True)
    except binascii.Error:
        raise InvalidArgument(f"invalid {path}: not base64") from None


_SCALARS: dict[Any, Decoder] = {
    str: _text,
    int: _integer,
    float: _ratio,
    bool: _boolean,
    timedelta: _duration,
    bytes: _bytes,
}


def _wrong(path: str, wanted: str, value: object) -> InvalidArgument:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}
    got = names.get(type(value), "number")
    return InvalidArgument(f"invalid {path or 'request body'}: expected {wanted}, got {got}")


def read_service_spec(value: object) -> ServiceSpec:
    """A service's spec as clients post it: no mode means replicated, `Replicated: {}` means one replica.

    A job's two numbers are spelt out, since Docker's client reads them unguarded: one task at a time unless
    it says more, and as many completions as tasks at a time unless it says how many.

    Raises:
        InvalidArgument: as `decode`, or several modes are given.
    """
    spec = decode(ServiceSpec, _with_networks_in_template(value))
    if len([mode for mode in fields(ServiceMode) if getattr(spec.mode, mode.name) is not None]) > 1:
        raise InvalidArgument("cannot specify more than one service mode")
    if spec.mode == ServiceMode():
        return replace(spec, mode=ServiceMode(replicated=ReplicatedMode()))
    if spec.mode.replicated_job is not None:
        return replace(spec, mode=ServiceMode(replicated_job=_spelt_out(spec.mode.replicated_job)))
    return spec


def _with_networks_in_template(value: object) -> object:
    """Old clients name a service's networks beside its template."""
    if not isinstance(value, dict) or not value.get("Networks"):
        return value
    template = value.get("TaskTemplate") or {}
    if not isinstance(template, dict):
        return value
    rest = {key: item for key, item in value.items() if key != "Networks"}
    return rest | {"TaskTemplate": {"Networks": value["Networks"]} | template}


def _spelt_out(job: ReplicatedJob) -> ReplicatedJob:
    at_once = 1 if job.max_concurrent is None else job.max_concurrent
    total = at_once if job.total_completions is None else job.total_completions
    return ReplicatedJob(max_concurrent=at_once, total_completions=total)


def with_defaults(service: Json) -> Json:
    """A copy of an encoded service in which defaults are spelt out (`insertDefaults=true`)."""
    spec = dict(service["Spec"])
    is_job = bool(spec["Mode"].keys() & {"ReplicatedJob", "GlobalJob"})
    template = dict(spec["TaskTemplate"])
    container = {"StopGracePeriod": 10_000_000_000, "DNSConfig": {}} | template["ContainerSpec"]
    policy = encode(RestartPolicy())
    template = {
        "RestartPolicy": policy,
        "Placement": {},
        "Resources": {"Limits": {}, "Reservations": {}},
    } | template
    if not is_job:
        for section in ("UpdateConfig", "RollbackConfig"):
            spec[section] = _UPDATE_DEFAULTS | spec.get(section, {})
    spec |= {
        "TaskTemplate": template | {"ContainerSpec": container},
        "EndpointSpec": {"Mode": "vip"} | encode(EndpointSpec()) | spec.get("EndpointSpec", {}),
    }
    return service | {"Spec": spec}
