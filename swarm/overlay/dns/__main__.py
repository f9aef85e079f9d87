"""The name server's process: one per host, apart from swarmd, so that names go on while swarmd restarts.

In: from whoever connects to its unix socket, lines of JSON: what to change, or to end. Out: for each line one
that tells what failed. The first line it says is its version.

Invariant: what it was told stays until it is told otherwise, also when nobody is connected.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from pathlib import Path

import swarm
from swarm.overlay.dns.forward import Forwarder
from swarm.overlay.dns.server import Server
from swarm.overlay.dns.state import NameState

LARGEST_LINE = 1 << 26


class Names:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._state = NameState()
        self._server = Server(Forwarder(group))
        self.ended = asyncio.Event()

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, as long as it lasts."""
        try:
            writer.write(_line({"version": swarm.__version__}))
            while line := await reader.readline():
                order = json.loads(line)
                if order.get("end"):
                    self.ended.set()
                    return
                if order["complete"]:
                    self._state = NameState()
                self._state.change(order["updates"], order["removals"])
                writer.write(_line({"failed": await self._serve()}))
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    async def _serve(self) -> dict[str, str]:
        """Bring all sockets and views up to date. Returns the tasks for which it failed, and why."""
        tasks = self._state.tasks()
        for task_id in self._server.list_tasks():
            if task_id not in tasks:
                self._server.close(task_id)
        failed: dict[str, str] = {}
        for task_id, path in tasks.items():
            view, servers = self._state.view(task_id), self._state.forward_to(task_id)
            try:
                await self._server.serve(task_id, path, view, servers)
            except OSError as error:
                failed[task_id] = str(error)
        return failed


async def main(path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    path.unlink(missing_ok=True)
    async with asyncio.TaskGroup() as group:
        names = Names(group)
        await asyncio.start_unix_server(names.obey, path, limit=LARGEST_LINE)
        await names.ended.wait()
        os._exit(0)  # nothing is to be saved, and open questions are asked again


def _line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
