"""The way from one data key to another, while everything runs on.

In: `/swarm/data-key`, which says how far the cluster is, and the managers' beats, which say what keys each
has on its disk. Out: keys that managers give each other, and objects that are sealed anew. The steps:
somebody asks for it; the leader makes the key and saves it; every manager fetches it and saves it; then it
seals, and the leader moves object after object to it; when nothing of the former key is left, that key is
given up.
Each step is one write that is compared with the one before, so a new leader goes on where the old one died.

Invariant: no value is sealed with a key before every manager has it on disk, and none gives a key up before
its own mirror has shown that nothing needs it. The key itself is never in the store: who has the old key
and a copy of the store's files gets nothing of the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from swarm.base.errors import SwarmError, Unavailable
from swarm.base.failpoint import failpoint
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.manager.ca.certificates import is_manager
from swarm.model.objects import Node
from swarm.secrets.box import new_data_key
from swarm.secrets.keyring import Keyring, name_of
from swarm.store import keys
from swarm.store.kv import Compare, Put
from swarm.store.sealing import UNMADE, DataKeys
from swarm.store.store import Store

LOOK_EVERY_S = 0.3
BATCH = 200

Ask = Callable[[NodeID], Awaitable[Sequence[bytes]]]
"""What keys another manager has. Raises: Unavailable, PermissionDenied."""

log = get_logger("data key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The keys of this manager: in memory, and how they are written to its disk."""

    ring: Keyring
    save: Callable[[Sequence[bytes]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rotation is."""

    keys: DataKeys
    waits_for: tuple[Node, ...]
    """Managers that do not have the key to come yet."""
    left: int
    """Objects still sealed with the former key."""
    total: int


class DataKeyRotation:
    def __init__(self, store: Store, me: NodeID, held: Held, ask: Ask) -> None:
        self._store = store
        self._me = me
        self._ring = held.ring
        self._save = held.save
        self._ask = ask
        self._changing = asyncio.Lock()
        """The leader's part has just made a key that is not announced yet: it is not surplus."""

    @property
    def progress(self) -> Progress:
        present, nodes = self._store.sealing.keys, self._store.view.list(Node)
        lacking = [n for n in nodes if is_manager(n) and present.coming and not self._has(n, present.coming)]
        total = self._store.sealing.count
        left = total if present.coming else len(self._store.sealing.list_aged()) if present.going else 0
        return Progress(keys=present, waits_for=tuple(lacking), left=left, total=total)

    async def request(self) -> None:
        """Set out for another key; one that is under way goes on. Raises: Unavailable."""
        await self._store.sync()
        present = self._store.sealing.keys
        if not present.coming and not present.going:
            failpoint("datakey.request.before")
            await self._announce(DataKeys(sealing=present.sealing, coming=UNMADE))
            failpoint("datakey.request.after")

    async def run(self) -> None:
        """Have the keys that are in use on this manager's disk, and no others, until cancelled."""
        while True:
            try:
                async with self._changing:
                    await self._follow()
            except SwarmError as error:
                log.info("datakey.waits", reason=str(error))
            except OSError as error:
                log.error("datakey.not.saved", reason=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def lead(self, epoch: int) -> None:
        """The leader's part, until cancelled. Raises: LeadershipLost."""
        while True:
            try:
                if not await self._step(epoch):
                    await asyncio.sleep(LOOK_EVERY_S)
            except Unavailable as error:
                log.info("datakey.step.failed", reason=str(error))
                await asyncio.sleep(LOOK_EVERY_S)
            except OSError as error:
                log.error("datakey.not.saved", reason=str(error))
                await asyncio.sleep(LOOK_EVERY_S)

    # --- every manager -------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        wanted = self._wanted()
        if missing := wanted.difference(self._ring.names):
            fetched = await self._fetch(missing)
            self._hold([*self._ring.data_keys, *fetched])
            failpoint("datakey.fetch.saved")
        if set(self._ring.names) > wanted:
            await self._store.sync()
            wanted = self._wanted()
            if set(self._ring.names) > wanted:
                self._hold([key for key in self._ring.data_keys if name_of(key) in wanted])
                log.info("datakey.given.up")
                failpoint("datakey.drop.saved")

    def _wanted(self) -> set[str]:
        present = self._store.sealing.keys
        return {present.sealing, present.coming, present.going} - {"", UNMADE}

    async def _fetch(self, names: set[str]) -> list[bytes]:
        """From the first managers that have them. Raises: Unavailable when nobody has one of them."""
        found: dict[str, bytes] = {}
        for node in self._store.view.list(Node):
            if node.id == self._me or not is_manager(node) or names <= found.keys():
                continue
            try:
                answer = await self._ask(node.id)
            except SwarmError as error:
                log.debug("datakey.not.given", by=node.id, reason=str(error))
                continue
            found |= {name_of(key): key for key in answer}
        if missing := names - found.keys():
            raise Unavailable(f"no manager gives the data key {sorted(missing)[0]}")
        log.info("datakey.fetched")
        return [found[name] for name in sorted(names)]

    def _hold(self, data_keys: Sequence[bytes]) -> None:
        """On disk first: what this manager's beats then say must survive it."""
        failpoint("datakey.save.before")
        self._save(data_keys)
        self._ring.hold(data_keys)

    # --- the leader ----------------------------------------------------------------------------------------

    async def _step(self, epoch: int) -> bool:
        """Whether something was done."""
        present = self._store.sealing.keys
        if present.coming:
            return await self._bring(present, epoch)
        if not present.going:
            return False
        aged = self._store.sealing.list_aged()
        if aged:
            failpoint("datakey.reseal.before")
            written = await self._store.reseal(aged[:BATCH], epoch)
            failpoint("datakey.reseal.after")
            return written > 0
        await self._store.sync()
        if self._store.sealing.list_aged():
            return True
        failpoint("datakey.end.before")
        await self._announce(DataKeys(sealing=present.sealing), epoch)
        log.info("datakey.rotated")
        failpoint("datakey.end.after")
        return True

    async def _bring(self, present: DataKeys, epoch: int) -> bool:
        """The key to come: made if nobody has it, and in use once every manager does."""
        managers = [node for node in self._store.view.list(Node) if is_manager(node)]
        holders = [node for node in managers if self._has(node, present.coming)]
        if not holders and present.coming not in self._ring.names:
            async with self._changing:
                await self._make(present, epoch)
            return True
        if len(holders) < len(managers):
            return False
        failpoint("datakey.switch.before")
        await self._announce(DataKeys(sealing=present.coming, going=present.sealing), epoch)
        failpoint("datakey.switch.after")
        return True

    async def _make(self, present: DataKeys, epoch: int) -> None:
        """Nothing has been sealed with a key that is to come, so one that is lost is replaced."""
        fresh = new_data_key()
        in_use = [key for key in self._ring.data_keys if name_of(key) == present.sealing]
        self._hold([*in_use, fresh])
        failpoint("datakey.make.saved")
        await self._announce(DataKeys(sealing=present.sealing, coming=name_of(fresh)), epoch)
        failpoint("datakey.make.announced")

    async def _announce(self, changed: DataKeys, epoch: int | None = None) -> None:
        """Raises: Unavailable."""
        leads = (Compare(keys.LEADER, epoch),) if epoch is not None else ()
        put = Put(keys.DATA_KEY, changed.encode())
        revision = await self._store.write_raw((*leads, self._store.sealing.fence), (put,))
        if revision is None:
            raise Unavailable("another manager changes the data key at this moment; try again")
        await self._store.sync()

    def _has(self, node: Node, name: str) -> bool:
        """As the manager itself has said."""
        beat = self._store.raw(keys.MANAGERS + node.id)
        return beat is not None and name in beat.value.decode().split()
