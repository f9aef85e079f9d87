"""Log drivers and their options: a `Driver` in, what the node does with a container's output out. Pure.

Both `json-file` and `local` are the node's own log files here; `none` keeps nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from swarm.base.errors import InvalidArgument
from swarm.model.container import Driver

MAX_BYTES = 10 << 20
MAX_FILES = 3
DRIVERS = ("json-file", "local", "none")
_SIZE = re.compile(r"([0-9]{1,12})([kmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LEAST_BYTES = 4096
_MOST_FILES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPolicy:
    """`max_files` of `max_bytes` are kept of a container's output."""

    is_kept: bool = True
    max_bytes: int = MAX_BYTES
    max_files: int = MAX_FILES


def log_policy(driver: Driver | None) -> LogPolicy:
    """What `driver` asks for; None is the default. Raises: InvalidArgument, with the way out."""
    if driver is None:
        return LogPolicy()
    name = driver.name or "json-file"
    if name not in DRIVERS:
        raise InvalidArgument(f"unknown log driver {name!r}: choose from {', '.join(DRIVERS)}")
    policy = LogPolicy(is_kept=name != "none")
    size, files = policy.max_bytes, policy.max_files
    for key, value in driver.options.items():
        if name != "none" and key == "max-size":
            size = _size(value)
        elif name != "none" and key == "max-file":
            files = _files(value)
        else:
            raise InvalidArgument(f"unknown log opt '{key}' for {name} log driver: {_known(name)}")
    return LogPolicy(is_kept=policy.is_kept, max_bytes=size, max_files=files)


def _known(name: str) -> str:
    return "it takes none" if name == "none" else "choose from max-file, max-size"


def _size(value: str) -> int:
    found = _SIZE.fullmatch(value)
    if found is None or (size := int(found[1]) * _UNITS[found[2].lower()]) < _LEAST_BYTES:
        raise InvalidArgument(f"invalid max-size {value!r}: expected a size from 4k on, such as 10m")
    return size


def _files(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= _MOST_FILES:
        raise InvalidArgument(f"invalid max-file {value!r}: expected a number from 1 to {_MOST_FILES}")
    return int(value)
