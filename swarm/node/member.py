"""A node while it is in a cluster: the worker's part always, the manager's part while it has the role.

The role may change while the node runs: its containers are not touched by that.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

from swarm.base.clock import Clock
from swarm.base.errors import SwarmError
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource
from swarm.base.log import get_logger
from swarm.manager.ca.certificates import counts, is_manager
from swarm.manager.manager import Manager
from swarm.model.defaults import CLUSTER_PORT
from swarm.model.host_offer import NO_OFFER, HostOffer
from swarm.model.objects import Node
from swarm.model.types import NodeRole
from swarm.node.certificates import Renewer, renew
from swarm.node.engine import LocalParts
from swarm.node.files import Membership, Paths, save_membership
from swarm.node.manager_part import ManagerNeeds, ManagerPart, Seed
from swarm.node.vault import Vault
from swarm.overlay.data_path import DataPath
from swarm.proto.identity import Identity
from swarm.store.etcd_process import DEFAULT_QUOTA_BYTES
from swarm.store.external import ExternalEtcd
from swarm.store.health import Health, StoreState
from swarm.worker.agent import Agent, AgentParts
from swarm.worker.controller import Controller, ControllerParts
from swarm.worker.execs import Execs
from swarm.worker.fence import Fence
from swarm.worker.host import node_facts
from swarm.worker.journal import Journal
from swarm.worker.log_publisher import LogPublisher
from swarm.worker.logs import LogRotator
from swarm.worker.payloads import Payloads
from swarm.worker.prober import Prober
from swarm.worker.reporter import Reporter
from swarm.worker.secret_driver import SecretDrivers
from swarm.worker.tasks import Tasks
from swarm.worker.usage import UsageReporter

REMOVE_TIMEOUT_S = 60.0
RETRY_ROLE_S = 1.0

log = get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a member gets from its process."""

    paths: Paths
    local: LocalParts
    clock: Clock
    new_id: IdSource
    vault: Vault
    identity: Callable[[], Identity]
    set_identity: Callable[[Identity], None]
    etcd_quota_bytes: int = DEFAULT_QUOTA_BYTES
    offer: HostOffer = NO_OFFER


class Member:
    def __init__(self, around: Surroundings, membership: Membership, seed: Seed | None = None) -> None:
        """`seed` is for a new cluster."""
        self._around = around
        self._membership = membership
        self._network = DataPath(
            local_address=membership.data_path_address,
            run_dir=around.paths.run,
            settings=around.local.networks.settings,
        )
        reporter = Reporter()
        fence = Fence(around.paths.run, around.clock)
        payloads = Payloads(SecretDrivers(around.paths.secret_drivers))
        controller = Controller(
            ControllerParts(
                images=around.local.images,
                containers=around.local.containers,
                network=self._network,
                node=node_facts(),
                fence=fence,
                prober=Prober(around.local.containers, around.clock),
                payloads=payloads,
            )
        )
        journal = Journal(around.paths.worker, around.vault)
        self.tasks = Tasks(journal=journal, controller=controller, clock=around.clock, report=reporter.put)
        self.logs = LogPublisher(around.local.containers, self.tasks)
        self.execs = Execs(around.local.containers, self.tasks)
        parts = AgentParts(
            tasks=self.tasks,
            network=self._network,
            journal=journal,
            payloads=payloads,
            reporter=reporter,
            logs=self.logs,
            execs=self.execs,
            fence=fence,
            offer=around.offer,
            usage=UsageReporter(around.local.containers, self.tasks.list, around.clock),
            clock=around.clock,
            store_trouble=self._store_trouble,
            home=self._home,
            remember=self._remember,
            told=self._told,
            certify=lambda terms: self._renewer.want(terms),
        )
        self._renewer = Renewer(around.clock, around.identity, self._next_certificate, self._use_certificate)
        self.agent = Agent(parts, around.identity, membership.managers, membership.data_path_address)
        self._manager_part = ManagerPart(self._manager_needs(), seed)
        self._node: Node | None = None
        self._node_changed = asyncio.Event()
        self._role_known = asyncio.Event()

    @property
    def membership(self) -> Membership:
        return self._membership

    @property
    def manager(self) -> Manager | None:
        """The manager's part, once it serves; None again while its data are known to be damaged."""
        manager = self._manager_part.manager
        return manager if manager is not None and manager.is_trustworthy else None

    @property
    def running_manager(self) -> Manager | None:
        """The same, also if it is not to be believed: to see how it is."""
        return self._manager_part.manager

    @property
    def store_health(self) -> Health | None:
        """How the manager's store is; None on a worker."""
        return self._manager_part.health if self._membership.role is NodeRole.MANAGER else None

    @property
    def external_store(self) -> ExternalEtcd | None:
        """The managers' store, when others run it."""
        return self._manager_part.external

    @property
    def etcd_quota_bytes(self) -> int:
        return self._around.etcd_quota_bytes

    async def repair(self, tell: Callable[[str], None]) -> None:
        """`ManagerPart.repair`."""
        await self._manager_part.repair(tell)

    async def connected(self) -> None:
        """Wait until the node has a session, and serves as a manager if it is to."""
        await self.agent.connected()
        await self._role_known.wait()
        if self._node is not None and self._node.spec.role is NodeRole.MANAGER:
            await self._manager_part.serving()

    async def run(self) -> None:
        """Until cancelled; containers go on running then."""
        local, around = self._around.local, self._around
        await self._network.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tasks.run(local.containers, local.images))
            group.create_task(LogRotator(local.containers.directory, around.clock).run())
            group.create_task(self.execs.keep())
            group.create_task(self.agent.run())
            group.create_task(self._renewer.run())
            await self._follow_role(group)

    async def announce_stop(self) -> None:
        """Have the managers wait for this node while its swarmd is away; `run` is to be cancelled after."""
        await self.agent.end_session(comes_back=True)

    async def leave(self) -> None:
        """Say so, stop and remove every task, and give the place in the store up; `run` must be running.

        It is told first, so that no replacement of its tasks is sent here again.
        """
        await self.agent.end_session(comes_back=False)
        try:
            async with asyncio.timeout(REMOVE_TIMEOUT_S):
                await self.tasks.remove_all()
        except TimeoutError:
            log.warning("leave.tasks.left", tasks=len(self.tasks.list()))
        if self._membership.role is NodeRole.MANAGER:
            await self._manager_part.leave_store()

    async def dismantle(self) -> None:
        """Take the network out of the kernel; after `run` has ended."""
        await self._network.start()
        await self._network.close(remove=True)

    async def _follow_role(self, group: asyncio.TaskGroup) -> None:
        """Start and stop the manager's part as the managers' records say."""
        serving: asyncio.Task[None] | None = None
        if self._membership.role is NodeRole.MANAGER:
            serving = self._begin_serving(group)
        while True:
            await self._node_changed.wait()
            self._node_changed.clear()
            if self._node is None:
                continue
            node = self._node
            try:
                must_enter = serving is None or self._manager_part.has_lost_place or self._is_left_behind()
                if node.spec.role is NodeRole.MANAGER and must_enter:
                    await _end(serving)
                    if self._around.identity().subject.role is not NodeRole.MANAGER:
                        await self._renew()
                    await self._manager_part.enter_store()
                    serving = self._begin_serving(group)
                    log.info("role.manager")
                elif serving is not None and not is_manager(node):
                    await _end(serving)
                    serving = None
                    await self._become_worker()
            except SwarmError as error:
                log.warning("role.unchanged", wanted=node.spec.role, reason=str(error))
                self._node_changed.set()
                await asyncio.sleep(RETRY_ROLE_S)

    def _is_left_behind(self) -> bool:
        """The cluster was recovered without this manager, whose store waits for a quorum of the past."""
        return 0 <= self._membership.generation < self.agent.generation

    def _begin_serving(self, group: asyncio.TaskGroup) -> asyncio.Task[None]:
        self._manager_part.has_lost_place = False
        serving = group.create_task(self._manager_part.run())
        serving.add_done_callback(lambda _: self._node_changed.set())
        return serving

    async def _become_worker(self) -> None:
        self._save(
            replace(self._membership, role=NodeRole.WORKER, initial_cluster="", member_id="", is_voter=True)
        )
        failpoint("role.worker.saved")
        paths = self._around.paths
        for folder in (paths.etcd, paths.manager, paths.store_member):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._around.vault.lock_with("")
        failpoint("role.worker.wiped")
        await self._renew()
        log.info("role.worker")

    async def _next_certificate(self) -> Identity:
        """From any manager, as long as the present one counts; after that a manager can only help itself."""
        identity = self._around.identity()
        if self._membership.role is NodeRole.MANAGER and not counts(identity, self._around.clock.now()):
            return await self._manager_part.certify()
        return await renew(self.agent.managers, identity)

    async def _renew(self) -> None:
        """Get a certificate for the role that the managers' records now give this node."""
        self._use_certificate(await renew(self.agent.managers, self._around.identity()))

    def _use_certificate(self, identity: Identity) -> None:
        self._around.set_identity(identity)
        self.agent.use_new_certificate()

    def _told(self, node: Node) -> None:
        self._node = node
        self._node_changed.set()
        self._role_known.set()

    def _manager_needs(self) -> ManagerNeeds:
        around = self._around
        return ManagerNeeds(
            paths=around.paths,
            clock=around.clock,
            new_id=around.new_id,
            vault=around.vault,
            identity=around.identity,
            use_certificate=self._use_certificate,
            membership=lambda: self._membership,
            save=self._save,
            etcd_quota_bytes=around.etcd_quota_bytes,
            others=lambda: [m for m in self.agent.managers if m != self._own()],
        )

    def _home(self) -> str:
        return self._own() if self.manager is not None else ""

    def _store_trouble(self) -> tuple[str, str]:
        health = self.store_health
        if health is None or health.serves or health.state is StoreState.STARTING:
            return "", ""
        return health.state, health.message

    def _own(self) -> str:
        return f"{self._membership.advertise_address}:{CLUSTER_PORT}"

    def _remember(self, managers: tuple[str, ...]) -> None:
        if managers != self._membership.managers:
            self._save(replace(self._membership, managers=managers))

    def _save(self, membership: Membership) -> None:
        self._membership = membership
        save_membership(self._around.paths, membership)


async def _end(serving: asyncio.Task[None] | None) -> None:
    if serving is not None:
        serving.cancel()
        await asyncio.wait({serving})
