"""A command run beside a task's own, in its container, and what goes to and fro while it runs.

Whoever runs one gets a config and an iterator of inputs, and gives an iterator of outputs: the host that has
the container, a manager that relays, and the API all speak it. Invariants: outputs end with the exit code or
with an error; inputs end only when whoever asked has gone, and then the command is killed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

MAX_PIECE_BYTES = 1 << 16

COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    height: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """`env`, `user` and `working_dir` come on top of the container's own."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    size: TerminalSize | None = None
    stdin: bool = False
    """Whether input will come; without, the command reads nothing."""
    detach: bool = False
    """Start it and let it be: no input, no output, nobody waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecInput:
    """Exactly one is set."""

    stdin: bytes = b""
    is_stdin_end: bool = False
    size: TerminalSize | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOutput:
    """Exactly one is set. A terminal has only `stdout`."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int | None = None


class ExecRunner(Protocol):
    def __call__(
        self, task_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AbstractAsyncContextManager[AsyncIterator[ExecOutput]]:
        """Runs the command while the context is open.

        Raises: NotFound, FailedPrecondition when the container does not run, Unavailable; Fatal with an exit
        code when the command cannot be executed.
        """
        ...
