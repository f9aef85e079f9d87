"""How a container ended, what was found of it after a restart, and signals by name. Pure values."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from swarm.base.errors import InvalidArgument

KILLED = 128 + signal.SIGKILL
_RT_SIGNAL = re.compile(r"RTM(IN\+|AX-)(\d{1,2})")


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    code: int
    oom_killed: bool = False
    """The container itself died for want of memory; a child's death alone does not count."""
    error: str = ""
    """Why the code is not the program's own."""
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A container that an earlier swarmd left."""

    id: str
    state: ContainerState
    pid: int = 0
    exit_status: ExitStatus | None = None


def parse_signal(text: str) -> int:
    """The number of `SIGTERM`, `term`, `15` or `SIGRTMIN+3`.

    Raises:
        InvalidArgument: no such signal.
    """
    name = text.strip().upper().removeprefix("SIG")
    if name.isdecimal() and 0 < int(name[:4]) <= signal.SIGRTMAX:
        return int(name)
    realtime = _RT_SIGNAL.fullmatch(name)
    if realtime:
        offset = int(realtime.group(2))
        number = signal.SIGRTMIN + offset if realtime.group(1) == "IN+" else signal.SIGRTMAX - offset
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif f"SIG{name}" in signal.Signals.__members__:
        return int(signal.Signals[f"SIG{name}"])
    raise InvalidArgument(f"invalid signal: {text}")
