"""Named places where a test makes swarmd die, hang or fail: `failpoint("store.commit.before")`.

In: SWARM_FAILPOINTS, read once, as `name:hit:action` joined by `;`. At the hit-th passage of the name,
counted from 1, the action happens, once: `kill9`, `exit`, `sleep:SECONDS` (the whole process stands still),
`error` (the caller gets `Unavailable`), `error:ENOSPC` (or another errno: it gets `OSError`), `pause:FILE`
(the process stands still until the file exists). Out: nothing, unless the point is armed.
Invariant: a name stands at one place of the code, and docs/testing.md lists it; tests/unit/base holds both.
Without the variable a point costs a call and one look at an empty dict.
Source: etcd's gofail points, in what they are for.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from dataclasses import dataclass
from enum import StrEnum

from swarm.base.errors import InvalidArgument, Unavailable

VARIABLE = "SWARM_FAILPOINTS"
_LOOK_S = 0.01


class Action(StrEnum):
    KILL9 = "kill9"
    EXIT = "exit"
    SLEEP = "sleep"
    ERROR = "error"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """What is to happen at the `hit`-th passage."""

    hit: int
    action: Action
    argument: str = ""


def parse_failpoints(text: str) -> dict[str, tuple[Armed, ...]]:
    """What SWARM_FAILPOINTS asks for, by name. Raises: InvalidArgument."""
    found: dict[str, tuple[Armed, ...]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, _, rest = part.partition(":")
        hit, _, action = rest.partition(":")
        word, _, argument = action.partition(":")
        if not name or not hit.isdecimal() or int(hit) < 1 or not _is_action(word, argument):
            raise InvalidArgument(f"invalid failpoint {part!r}: it should be name:hit:action[:argument]")
        armed = Armed(hit=int(hit), action=Action(word), argument=argument)
        found[name] = (*found.get(name, ()), armed)
    return found


def failpoint(name: str) -> None:
    """Pass the point. Raises what an armed `error` says."""
    if _armed:
        _pass(name)


def arm(text: str) -> None:
    """Replace what is armed, and count anew; an empty text disarms. For tests within the process."""
    _armed.clear()
    _armed.update(parse_failpoints(text))
    _passed.clear()


def _is_action(word: str, argument: str) -> bool:
    match word:
        case Action.KILL9 | Action.EXIT:
            return not argument
        case Action.SLEEP:
            return argument.replace(".", "", 1).isdecimal()
        case Action.ERROR:
            return not argument or hasattr(errno, argument)
        case Action.PAUSE:
            return argument.startswith("/")
    return False


def _pass(name: str) -> None:
    wanted = _armed.get(name)
    if wanted is None:
        return
    _passed[name] = _passed.get(name, 0) + 1
    for armed in wanted:
        if armed.hit == _passed[name]:
            _act(name, armed)


def _act(name: str, armed: Armed) -> None:
    # Written by hand and at once: after it there may be no process whose log could be flushed.
    os.write(sys.stderr.fileno(), f"failpoint {name} hit {armed.hit}: {armed.action}\n".encode())
    match armed.action:
        case Action.KILL9:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        case Action.EXIT:
            os._exit(1)
        case Action.SLEEP:
            time.sleep(float(armed.argument))
        case Action.ERROR if armed.argument:
            number = getattr(errno, armed.argument)
            raise OSError(number, f"{os.strerror(number)} (failpoint {name})")
        case Action.ERROR:
            raise Unavailable(f"failpoint {name}")
        case Action.PAUSE:
            while not os.path.exists(armed.argument):
                time.sleep(_LOOK_S)


_armed: dict[str, tuple[Armed, ...]] = parse_failpoints(os.environ.get(VARIABLE, ""))
_passed: dict[str, int] = {}
