"""A program to run in a container beside its own: the container's process in, that program's out. Pure.

Invariant: it gets what the container's own process has (limits, filter, variables), never more.
Source: OCI runtime-spec config.md, process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from swarm.base.errors import InvalidArgument
from swarm.worker.runtime.resolved import User
from swarm.worker.runtime.spec import capability_sets, user_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    """Empty: the container's."""
    cwd: str = ""
    """Empty: the container's."""
    tty: bool = False
    stdin: bool = False
    """The program can be written to; else its input is empty."""


def check_exec(config: ExecConfig) -> None:
    """Raises: InvalidArgument."""
    if not config.args or not config.args[0]:
        raise InvalidArgument("No exec command specified")
    if any("\0" in text for text in (*config.args, *config.env, config.cwd)):
        raise InvalidArgument("invalid exec: a NUL byte in the command, its environment or directory")
    if config.cwd and not config.cwd.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.cwd}' is invalid, it needs to be an absolute path"
        )


def exec_process(process: Mapping[str, Any], config: ExecConfig, user: User | None) -> dict[str, object]:
    """`process` is that of the container's configuration; `user` None is the container's."""
    has_terminal = config.tty
    env = _variables(process["env"])
    if user is not None:
        env["HOME"] = user.home
    if has_terminal:
        env.setdefault("TERM", "xterm")
    env.update(_variables(config.env))
    ids: dict[str, Any] = user_ids(user) if user is not None else process["user"]
    return {
        **process,
        "terminal": has_terminal,
        "user": ids,
        "args": list(config.args),
        "env": [f"{key}={value}" for key, value in env.items()],
        "cwd": config.cwd or process["cwd"],
        "capabilities": capability_sets(frozenset(process["capabilities"]["bounding"]), ids["uid"]),
    }


def _variables(entries: Iterable[str]) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in entries)
    return {key: value for key, equals, value in pairs if equals}
