"""A node while it is in a cluster: the worker's part always, the manager's part when its role says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from swarm.base.clock import Clock
from swarm.base.errors import Unavailable
from swarm.base.ids import IdSource
from swarm.base.log import get_logger
from swarm.manager.ca.etcd_ca import etcd_files
from swarm.manager.manager import Listen, Manager
from swarm.model.defaults import CLUSTER_PORT
from swarm.model.plan import Op
from swarm.model.types import NodeRole
from swarm.node.engine import LocalParts
from swarm.node.files import Membership, Paths, save_membership
from swarm.overlay.data_path import DataPath
from swarm.proto.identity import Identity
from swarm.secrets.box import Box
from swarm.store.etcd import EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings
from swarm.store.store import Store
from swarm.worker.agent import Agent, AgentParts
from swarm.worker.controller import Controller, read_nameservers
from swarm.worker.journal import Journal
from swarm.worker.log_publisher import LogPublisher
from swarm.worker.logs import LogRotator
from swarm.worker.reporter import Reporter
from swarm.worker.tasks import Tasks

REMOVE_TIMEOUT_S = 60.0

log = get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a member gets from its process."""

    paths: Paths
    local: LocalParts
    clock: Clock
    new_id: IdSource
    identity: Callable[[], Identity]


class Member:
    def __init__(self, around: Surroundings, membership: Membership, seed: Sequence[Op] = ()) -> None:
        """`seed` is what a new cluster starts with; it is committed before anything is served."""
        self._around = around
        self._membership = membership
        self._seed = seed
        self._network = DataPath(local_address=membership.data_path_address, run_dir=around.paths.run)
        reporter = Reporter()
        controller = Controller(
            images=around.local.images,
            containers=around.local.containers,
            network=self._network,
            nameservers=read_nameservers(),
        )
        journal = Journal(around.paths.worker)
        self.tasks = Tasks(journal=journal, controller=controller, clock=around.clock, report=reporter.put)
        self.logs = LogPublisher(around.local.containers, self.tasks)
        parts = AgentParts(
            tasks=self.tasks,
            network=self._network,
            journal=journal,
            reporter=reporter,
            logs=self.logs,
            clock=around.clock,
        )
        self.agent = Agent(
            parts, around.identity, membership.managers, membership.data_path_address, self._remember
        )
        self._manager: Manager | None = None

    @property
    def membership(self) -> Membership:
        return self._membership

    @property
    def manager(self) -> Manager | None:
        """The manager's part, once it serves."""
        return self._manager

    async def connected(self) -> None:
        """Wait until the node has its first session (a manager: with itself)."""
        await self.agent.connected()

    async def run(self) -> None:
        """Until cancelled; containers go on running then."""
        if self._membership.role is NodeRole.MANAGER:
            files = etcd_files(self._around.paths.manager)
            async with aclosing(EtcdKV(files.address())) as kv, asyncio.TaskGroup() as group:
                await self._run_manager(group, kv)
                await self._run_worker(group)
        else:
            async with asyncio.TaskGroup() as group:
                await self._run_worker(group)

    async def _run_worker(self, group: asyncio.TaskGroup) -> None:
        local = self._around.local
        await self._network.start()
        group.create_task(self.tasks.run(local.containers, local.images))
        group.create_task(LogRotator(local.containers.directory, self._around.clock).run())
        group.create_task(self.agent.run())

    async def leave(self) -> None:
        """Stop and remove every task; `run` must still be running."""
        try:
            async with asyncio.timeout(REMOVE_TIMEOUT_S):
                await self.tasks.remove_all()
        except TimeoutError:
            log.warning("leave.tasks.left", tasks=len(self.tasks.list()))

    async def dismantle(self) -> None:
        """Take the network out of the kernel; after `run` has ended."""
        await self._network.start()
        await self._network.close(remove=True)

    async def _run_manager(self, group: asyncio.TaskGroup, kv: EtcdKV) -> None:
        paths = self._around.paths
        settings = EtcdSettings(
            name=self._around.identity().subject.node_id,
            directory=paths.etcd,
            peer_address=self._membership.advertise_address,
            files=etcd_files(paths.manager),
        )
        etcd = EtcdProcess(settings)
        group.create_task(etcd.run())
        await _serving(etcd)
        store = Store(kv, Box(paths.data_key.read_bytes()), self._around.clock)
        group.create_task(store.run())
        await store.ready()
        if self._seed:
            await store.commit(self._seed)
        listen = Listen(
            address=self._membership.listen_address,
            join_port=self._membership.join_port,
            cluster_port=CLUSTER_PORT,
        )
        manager = Manager(store, self._around.clock, self._around.new_id, self._around.identity, listen)
        group.create_task(manager.run())
        await manager.serving()
        self._manager = manager

    def _remember(self, managers: tuple[str, ...]) -> None:
        if managers != self._membership.managers:
            self._membership = replace(self._membership, managers=managers)
            save_membership(self._around.paths, self._membership)


async def _serving(etcd: EtcdProcess) -> None:
    while True:
        try:
            await etcd.serving()
        except Unavailable as error:
            log.error("etcd.not.serving", reason=str(error))
        else:
            return
