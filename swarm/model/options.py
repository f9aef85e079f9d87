"""What our services can do beyond Docker's: options that travel as labels whose keys begin with `swarm.`.

A label is what every client, compose file and library can set, shows, and keeps from `inspect` to `update`.
Options of the service are labels of the service; those that change the container are labels of the container,
so that a change of theirs makes new tasks. `--exclusive` of our command line only writes the label.

Invariant: a key with our prefix that is not listed here, or a value that cannot be meant, is refused when the
service is created or updated; planners may read stored labels without a second check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from swarm.base.errors import InvalidArgument
from swarm.model.port_options import PortName, PortOptions, with_port_option

PREFIX = "swarm."
PROGRESS_DEADLINE = timedelta(minutes=10)
"""An update that makes no progress for this long has failed (Nomad's default too)."""
HISTORY = 3
"""Runs of a scheduled job whose tasks are kept."""
COOLDOWN = timedelta(seconds=30)


class Strategy(StrEnum):
    SPREAD = "spread"
    BINPACK = "binpack"


class Condition(StrEnum):
    """What a service waits for in another one."""

    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class Concurrency(StrEnum):
    """What happens when a scheduled job's time comes while its last run goes on."""

    ALLOW = "allow"
    FORBID = "forbid"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    service: str
    condition: Condition = Condition.STARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscale:
    """Replicas follow load. At least one of the two targets is set."""

    min: int = 1
    max: int = 1
    cpu_percent: int = 0
    """Of the task's CPU limit, or of one core where it has none; 0: not looked at."""
    memory_percent: int = 0
    """Of the task's memory limit; 0: not looked at."""
    cooldown: timedelta = COOLDOWN
    """Between two decisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    cron: str = ""
    timezone: str = "UTC"
    concurrency: Concurrency = Concurrency.FORBID
    history: int = HISTORY


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    exclusive: bool = False
    autoscale: Autoscale | None = None
    depends_on: tuple[Dependency, ...] = ()
    schedule: Schedule | None = None
    progress_deadline: timedelta = PROGRESS_DEADLINE
    """0: an update may wait for ever, as with Docker."""
    restart_max_delay: timedelta | None = None
    """Set: a restart's delay doubles from one failure to the next, up to this."""
    restart_overlap: bool = False
    """A replacement may start while the task before it is still stopping."""
    strategy: Strategy = Strategy.SPREAD
    rebalance: int = 0
    """Tasks that may be moved at a time to even nodes out; 0: none is moved by itself."""
    ports: Mapping[PortName, PortOptions] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOptions:
    """What Docker's Swarm mode refuses. The cluster must allow each (see `Policy`)."""

    privileged: bool = False
    devices: tuple[str, ...] = ()
    """`host[:container[:rwm]]`."""
    security_opts: tuple[str, ...] = ()
    shm_size_bytes: int = 0
    pid_host: bool = False
    ipc_host: bool = False


DEFAULTS = ServiceOptions()
CONTAINER_DEFAULTS = ContainerOptions()


def service_options(labels: Mapping[str, str]) -> ServiceOptions:
    """Raises: InvalidArgument."""
    ours = _ours(labels)
    return _service_options(ours) if ours else DEFAULTS


def container_options(labels: Mapping[str, str]) -> ContainerOptions:
    """Raises: InvalidArgument."""
    ours = _ours(labels)
    return _container_options(ours) if ours else CONTAINER_DEFAULTS


def allowed(cluster_labels: Mapping[str, str]) -> frozenset[str]:
    """The container options that the cluster allows (`swarm update --allow …`). Raises: InvalidArgument."""
    text = cluster_labels.get(ALLOW_LABEL, "")
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    unknown = names - _GATED
    if unknown:
        raise InvalidArgument(
            f"invalid {ALLOW_LABEL}: unknown option {min(unknown)!r}: choose from {', '.join(sorted(_GATED))}"
        )
    return names


def refuse_forbidden(options: ContainerOptions, policy: frozenset[str]) -> None:
    """Raises InvalidArgument for the first option that the cluster does not allow."""
    asked = {
        "privileged": options.privileged,
        "device": bool(options.devices),
        "security-opt": bool(options.security_opts),
        "shm-size": bool(options.shm_size_bytes),
        "pid-host": options.pid_host,
        "ipc-host": options.ipc_host,
    }
    for name, is_asked in asked.items():
        if is_asked and name not in policy:
            raise InvalidArgument(
                f"{name} is not allowed in this swarm: allow it on a manager with swarm update --allow {name}"
            )


ALLOW_LABEL = "swarm.allow"
_GATED = frozenset({"privileged", "device", "security-opt", "shm-size", "pid-host", "ipc-host"})
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE = re.compile(r"(\d+)([kmg]?)b?")
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
Ours = tuple[tuple[str, str], ...]
E = TypeVar("E", bound=StrEnum)


def _ours(labels: Mapping[str, str]) -> Ours:
    return tuple(sorted((key, value) for key, value in labels.items() if key.startswith(PREFIX)))


@lru_cache(maxsize=1024)
def _service_options(ours: Ours) -> ServiceOptions:
    found: dict[str, Any] = {}
    schedule: dict[str, Any] = {}
    ports: dict[PortName, PortOptions] = {}
    for key, value in ours:
        name = key.removeprefix(PREFIX)
        if name in _SCHEDULE:
            field_name, read = _SCHEDULE[name]
            schedule[field_name] = read(key, value)
        elif name in _SERVICE:
            field_name, read = _SERVICE[name]
            found[field_name] = read(key, value)
        elif name.startswith("port."):
            ports = with_port_option(ports, name, value)
        else:
            raise InvalidArgument(f"unknown option label {key}: {_near(name, {**_SERVICE, **_SCHEDULE})}")
    options = ServiceOptions(**found, ports=ports)
    if not schedule:
        return options
    if "cron" not in schedule:
        raise InvalidArgument(f"{PREFIX}schedule is missing: the job's other schedule options need it")
    return replace(options, schedule=Schedule(**schedule))


@lru_cache(maxsize=1024)
def _container_options(ours: Ours) -> ContainerOptions:
    found: dict[str, Any] = {}
    for key, value in ours:
        name = key.removeprefix(PREFIX)
        if name not in _CONTAINER:
            raise InvalidArgument(f"unknown option label {key}: {_near(name, _CONTAINER)}")
        field_name, read = _CONTAINER[name]
        found[field_name] = read(key, value)
    return ContainerOptions(**found)


def _near(name: str, known: Mapping[str, object]) -> str:
    return (
        f"labels that begin with {PREFIX} are options: {', '.join(PREFIX + each for each in sorted(known))}"
    )


def _wrong(key: str, value: str, wanted: str) -> InvalidArgument:
    return InvalidArgument(f"invalid {key} {value!r}: expected {wanted}")


def _flag(key: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise _wrong(key, value, "true or false")
    return value == "true"


def duration(key: str, value: str) -> timedelta:
    """`1h30m`, `45s`, `0`. Raises: InvalidArgument."""
    if value == "0":
        return timedelta(0)
    if not _DURATION.fullmatch(value):
        raise _wrong(key, value, "a duration such as 30s or 10m")
    return timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in _DURATION_PART.findall(value)))


def _count(key: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,6}", value):
        raise _wrong(key, value, "a whole number")
    return int(value)


def _percent(key: str, value: str) -> int:
    number = value.removesuffix("%")
    if not re.fullmatch(r"\d{1,4}", number) or not 1 <= int(number) <= 1000:
        raise _wrong(key, value, "a percentage from 1% to 1000%")
    return int(number)


def _size(key: str, value: str) -> int:
    found = _SIZE.fullmatch(value.lower())
    if not found:
        raise _wrong(key, value, "a size such as 64m")
    return int(found[1]) * _SIZES[found[2]]


def _words(key: str, value: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value.split(","))
    if not all(words):
        raise _wrong(key, value, "a list, separated by commas")
    return words


def _choice(kind: type[E]) -> Callable[[str, str], E]:
    def read(key: str, value: str) -> E:
        try:
            return kind(value)
        except ValueError:
            raise _wrong(key, value, " or ".join(kind)) from None

    return read


def _text(key: str, value: str) -> str:
    if not value:
        raise _wrong(key, value, "a text")
    return value


def _host(key: str, value: str) -> bool:
    if value != "host":
        raise _wrong(key, value, "host")
    return True


def _dependencies(key: str, value: str) -> tuple[Dependency, ...]:
    """`db:healthy,cache`."""
    found = []
    for word in _words(key, value):
        service, _, condition = word.partition(":")
        found.append(
            Dependency(service=_text(key, service), condition=_choice(Condition)(key, condition or "started"))
        )
    return tuple(found)


def _autoscale(key: str, value: str) -> Autoscale:
    """`min=2,max=10,cpu=70%,memory=80%,cooldown=30s`."""
    found: dict[str, Any] = {}
    for word in _words(key, value):
        name, equals, text = word.partition("=")
        if not equals or name not in _AUTOSCALE or _AUTOSCALE[name][0] in found:
            raise _wrong(key, value, "min=N,max=N,cpu=N%[,memory=N%][,cooldown=DURATION]")
        field_name, read = _AUTOSCALE[name]
        found[field_name] = read(f"{key} {name}", text)
    scale = Autoscale(**found)
    if "max" not in found or scale.min < 1 or scale.max < scale.min:
        raise _wrong(key, value, "min (at least 1) and max (at least min)")
    if not scale.cpu_percent and not scale.memory_percent:
        raise _wrong(key, value, "a target: cpu=N% or memory=N%")
    return scale


_AUTOSCALE: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "min": ("min", _count),
    "max": ("max", _count),
    "cpu": ("cpu_percent", _percent),
    "memory": ("memory_percent", _percent),
    "cooldown": ("cooldown", duration),
}
_SERVICE: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "exclusive": ("exclusive", _flag),
    "autoscale": ("autoscale", _autoscale),
    "depends-on": ("depends_on", _dependencies),
    "update.progress-deadline": ("progress_deadline", duration),
    "restart.max-delay": ("restart_max_delay", duration),
    "restart.overlap": ("restart_overlap", _flag),
    "placement.strategy": ("strategy", _choice(Strategy)),
    "rebalance": ("rebalance", _count),
}
_SCHEDULE: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "schedule": ("cron", _text),
    "schedule.timezone": ("timezone", _text),
    "schedule.concurrency": ("concurrency", _choice(Concurrency)),
    "schedule.history": ("history", _count),
}
_CONTAINER: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "privileged": ("privileged", _flag),
    "device": ("devices", _words),
    "security-opt": ("security_opts", _words),
    "shm-size": ("shm_size_bytes", _size),
    "pid": ("pid_host", _host),
    "ipc": ("ipc_host", _host),
}
