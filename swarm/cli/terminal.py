"""The user's terminal and input while a command runs elsewhere: bytes from here to there and back.

Invariant: the terminal is as it was when this is over, however it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swarm.api.client import read_frames
from swarm.api.http1 import Answer, Connection

_PIECE = 1 << 15


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key goes through as it is, also Ctrl-C; nothing happens where the input is no terminal."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def size_of_terminal() -> list[int] | None:
    """[height, width]; None where the output is no terminal."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return None
    return [size.lines, size.columns]


@contextmanager
def when_resized(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` whenever the terminal changes its size."""
    before = signal.signal(signal.SIGWINCH, lambda *_: tell())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def send_input(connection: Connection) -> None:
    """Send what is typed or piped in, to its end, while the caller does something else."""

    def pump() -> None:
        try:
            while piece := os.read(sys.stdin.fileno(), _PIECE):
                connection.send(piece)
        except OSError:
            return  # the command has ended: nobody reads any more
        connection.end_sending()

    threading.Thread(target=pump, daemon=True).start()


def show_output(answer: Answer, *, is_raw: bool) -> None:
    """Print what comes until the end; a terminal's output comes as it is, other output in frames."""
    if is_raw:
        while piece := answer.read1(_PIECE):
            _write(sys.stdout.fileno(), piece)
        return
    for stream, payload in read_frames(answer):
        _write((sys.stderr if stream == 2 else sys.stdout).fileno(), payload)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
