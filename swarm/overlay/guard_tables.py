"""The guards of all bridges of this host: the gateway's in the host's namespace, the overlays' in their own.

In: the records of this host's tasks. Out: firewall transactions.

Invariant: a task's places are known to its guards before its processes start, so nothing of its own is lost;
and no port is ever without a guard, but for what `verify` finds flushed by others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from swarm.overlay import nft
from swarm.overlay.guard import (
    GATEWAY_PORT,
    GUARD_TABLE,
    TASK_PORT,
    Place,
    gateway_places,
    overlay_places,
    render_guard,
    render_places,
    shape_of_guard,
)
from swarm.overlay.netns import Namespaces
from swarm.overlay.networks import PREFIX
from swarm.overlay.records import TaskRecord
from swarm.overlay.service_tables import Call

_HOST = ""


@dataclass(frozen=True, slots=True)
class _Applied:
    places: frozenset[Place]
    mark: tuple[int, int]
    """The namespace, and its count of firewall transactions when the table was last seen whole."""


class GuardTables:
    def __init__(self, namespaces: Namespaces, call: Call, gateway: Callable[[], str]) -> None:
        """`gateway` gives the host's address on the gateway network, once there is one."""
        self._namespaces = namespaces
        self._call = call
        self._gateway = gateway
        self._applied: dict[str, _Applied] = {}

    async def admit(self, records: Collection[TaskRecord]) -> None:
        """Let the tasks of `records` speak under their addresses, and under no others."""
        for name, places in self._wanted(records).items():
            applied = self._applied.get(name)
            if applied is None:
                await self._rewrite(name, places)
            elif not places <= applied.places:
                await nft.apply_rules(render_places(places - applied.places), self._path(name))
                self._applied[name] = replace(applied, places=applied.places | places)

    async def verify(self, records: Collection[TaskRecord]) -> int:
        """Make whole what others touched. Returns how many tables that were."""
        mended = 0
        for name, places in self._wanted(records).items():
            applied = self._applied.get(name)
            mark = await self._read_mark(name)
            if applied is None or mark[0] != applied.mark[0]:
                is_whole = False
            elif mark == applied.mark:
                is_whole = True
            else:
                found = await nft.read_shape(self._path(name), GUARD_TABLE)
                is_whole = found == shape_of_guard(_prefix(name), applied.places)
                self._applied[name] = replace(applied, mark=mark)
            if not is_whole:
                await self._rewrite(name, places)
                mended += 1
        return mended

    async def remove(self) -> None:
        """The host's table; the others go with their namespaces."""
        self._applied.clear()
        await nft.apply_rules(f"add table {GUARD_TABLE}\ndelete table {GUARD_TABLE}\n")

    def _wanted(self, records: Collection[TaskRecord]) -> dict[str, frozenset[Place]]:
        networks = {given.network_id for record in records for given in record.attachments}
        names = {PREFIX + n: n for n in networks if self._namespaces.exists(PREFIX + n)}
        for name in self._applied.keys() - names.keys() - {_HOST}:
            del self._applied[name]
        wanted = {name: overlay_places(records, network_id) for name, network_id in names.items()}
        return {_HOST: gateway_places(records)} | wanted

    async def _rewrite(self, name: str, places: frozenset[Place]) -> None:
        self._applied.pop(name, None)  # until the outcome is known
        gateway = self._gateway() if name == _HOST else ""
        await nft.apply_rules(render_guard(_prefix(name), places, gateway), self._path(name))
        self._applied[name] = _Applied(places, await self._read_mark(name))

    async def _read_mark(self, name: str) -> tuple[int, int]:
        if name == _HOST:
            return 0, nft.read_generation()

        def read() -> tuple[int, int]:
            inode = self._namespaces.path(name).stat().st_ino
            return inode, self._namespaces.run(name, nft.read_generation)

        return await self._call(read)

    def _path(self, name: str) -> Path | None:
        return self._namespaces.path(name) if name else None


def _prefix(name: str) -> str:
    return TASK_PORT if name else GATEWAY_PORT
