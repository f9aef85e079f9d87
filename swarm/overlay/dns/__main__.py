"""The name server's process: one per host, apart from swarmd, so that names go on while swarmd restarts.

In: orders that tell what to change. Out: for each, what failed.

Invariant: what it was told stays until it is told otherwise.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from swarm.overlay.dns.forward import Forwarder
from swarm.overlay.dns.server import Server
from swarm.overlay.dns.state import NameState
from swarm.overlay.side_program import obey_orders


class Names:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._state = NameState()
        self._server = Server(Forwarder(group))

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["complete"]:
            self._state = NameState()
        self._state.change(order["updates"], order["removals"])
        return {"failed": await self._serve()}

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
    async with asyncio.TaskGroup() as group:
        await obey_orders(path, Names(group).obey)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
