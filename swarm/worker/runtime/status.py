"""How a container ended, and what was found of it after a restart. Pure values."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

KILLED = 128 + signal.SIGKILL


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
