"""What the programs beside swarmd have in common: they obey whoever connects to their unix socket.

In: lines of JSON, each an order, or the order to end. Out: for each a line with what came of it. The first
line that is said is the program's version. `side_process.py` is swarmd's side.

Invariant: what the program was told stays until it is told otherwise, also when nobody is connected. There is
one program for a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import swarm

LARGEST_LINE = 1 << 26
TRIES, TRY_EVERY_S = 40, 0.05
"""How long one that is to end, and has said so, is waited for."""


async def obey_orders(path: Path, obey: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
    """Until the order to end comes: then the process ends."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(_line({"version": swarm.__version__}))
            while line := await reader.readline():
                order = json.loads(line)
                if order.get("end"):
                    ended.set()
                    return
                writer.write(_line(await obey(order)))
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    with socket.socket(socket.AF_UNIX) as mark:
        if not await _is_the_only_one(mark, path):
            return
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(talk, path, limit=LARGEST_LINE)
        await ended.wait()
    path.unlink(missing_ok=True)
    os._exit(0)  # nothing is to be saved: sockets end with the process


async def _is_the_only_one(mark: socket.socket, path: Path) -> bool:
    """Two may be started when the first is slow to listen: one that lost its socket to the other would stay.

    The mark is a socket without a file, which is free again when its process has ended, however it did.
    """
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            mark.bind(f"\0{path}")
            return True
        await asyncio.sleep(TRY_EVERY_S)
    return False


def _line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"
