"""Keeps what every connected node must know up to date, and wakes the streams whose node is concerned.

The shared part is computed once per batch of changes, not once per node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from swarm.base.ids import NodeID
from swarm.manager.dispatcher.assignments import Difference, Item, difference, node_items, shared_items
from swarm.model.objects import Cluster, Network, Node, Service, Task
from swarm.store.store import Store

QUIET_S = 0.02
LIMIT_S = 0.2


class AssignmentHub:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._shared: dict[str, Item] = {}
        self._streams: dict[NodeID, set[asyncio.Event]] = {}

    async def run(self) -> None:
        with self._store.changes(Task, Service, Node, Network, Cluster) as changes:
            self._shared = shared_items(self._store.view)
            while True:
                changed = await changes.settle(QUIET_S, LIMIT_S)
                tasks = (t for c in changed.values() for t in (c.old, c.new) if isinstance(t, Task))
                nodes = {NodeID(key[1]) for key in changed if key[0] is Node}
                nodes |= {t.node_id for t in tasks}
                concerns_all = any(key[0] in (Network, Cluster) for key in changed)
                self._refresh(set(self._streams) if concerns_all else nodes)

    def _refresh(self, nodes: set[NodeID]) -> None:
        shared = shared_items(self._store.view)
        concerned = set(self._streams) if shared != self._shared else nodes
        self._shared = shared
        for node_id in concerned:
            for event in self._streams.get(node_id, ()):
                event.set()

    async def differences(self, node_id: NodeID) -> AsyncGenerator[Difference, None]:
        """First everything, then each change, for one node's stream."""
        with self._woken(node_id) as woken:
            told = node_items(self._store.view, node_id, self._shared)
            yield Difference(tuple(told.items()), ())
            while True:
                await woken.wait()
                woken.clear()
                now = node_items(self._store.view, node_id, self._shared)
                changed = difference(told, now)
                told = now
                if changed:
                    yield changed

    @contextmanager
    def _woken(self, node_id: NodeID) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._streams.setdefault(node_id, set()).add(event)
        try:
            yield event
        finally:
            self._streams[node_id].discard(event)
            if not self._streams[node_id]:
                del self._streams[node_id]
