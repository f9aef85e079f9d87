"""What the programs beside swarmd have in common: they obey whoever connects to their unix socket.

In: lines of JSON, each an order, or the order to end. Out: for each a line with what came of it. The first
line that is said is the program's version. `side_process.py` is swarmd's side.

Invariant: what the program was told stays until it is told otherwise, also when nobody is connected.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import swarm

LARGEST_LINE = 1 << 26


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

    path.unlink(missing_ok=True)
    await asyncio.start_unix_server(talk, path, limit=LARGEST_LINE)
    await ended.wait()
    path.unlink(missing_ok=True)
    os._exit(0)  # nothing is to be saved: sockets end with the process


def _line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"
