"""The name server's process, from swarmd's side: started when a task needs it, told of changes, then ended.

In: the items of `swarm.overlay.names`. Out: a server that answers by them.

Invariant: what was not confirmed counts as not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from swarm.base.errors import Temporary
from swarm.base.log import Logger
from swarm.overlay.names import Item, difference, has_tasks
from swarm.overlay.side_process import SideProcess


class NameServer:
    def __init__(self, path: Path, log: Logger) -> None:
        self._process = SideProcess("swarm.overlay.dns", path)
        self._log = log
        self._told: dict[str, Item] = {}

    async def tell(self, items: Mapping[str, Item]) -> int:
        """Make the server answer by `items`. Returns how many had to be told.

        Raises: Temporary when it cannot be started or does not answer.
        """
        if not has_tasks(items):
            await self.end()
            return 0
        try:
            return await self._tell(items)
        except OSError as error:
            await self._let_go()
            raise Temporary(f"the name server of this host does not answer: {error}") from error

    def serves(self, task_id: str) -> bool:
        return f"task/{task_id}" in self._told

    async def end(self) -> None:
        """End the server, also one that a former swarmd has left."""
        await self._process.end()
        self._told = {}

    def close(self) -> None:
        """Let go of it: it goes on."""
        self._process.close()
        self._told = {}

    async def _tell(self, items: Mapping[str, Item]) -> int:
        if self._process.is_lost:
            self._log.warning("name server lost")
            await self._let_go()
        updates, removals = difference(self._told, items)
        if not updates and not removals:
            return 0
        heard = await self._process.ask(
            {"complete": not self._told, "updates": updates, "removals": removals}
        )
        self._told = dict(items)
        for task_id, reason in heard["failed"].items():
            del self._told[f"task/{task_id}"]
            self._log.warning("names not served", task=task_id, error=reason)
        return len(updates) + len(removals)

    async def _let_go(self) -> None:
        await self._process.let_go()
        self._told = {}
