"""Signals by name: the text of a spec or an image in, this kernel's number out. Source: Docker, signal(7)."""

from __future__ import annotations

import re
import signal

from swarm.base.errors import InvalidArgument

_RT_SIGNAL = re.compile(r"RTM(IN\+|AX-)(\d{1,2})")


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
