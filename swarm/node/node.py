"""The composition root: builds the parts of one host and serves its API."""

from __future__ import annotations

import asyncio

from swarm.api.app import application, serving
from swarm.api.backend import InitRequest, JoinRequest, NodeMembership, RestoreRequest, SwarmStatus
from swarm.base.clock import Clock
from swarm.base.errors import (
    InvalidArgument,
    NotFound,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource, NodeID
from swarm.base.log import Secret
from swarm.manager.backup import write_backup
from swarm.manager.ca.certificates import counts
from swarm.manager.ca.root import token_text
from swarm.manager.ca.rotation import desired_root
from swarm.manager.control.control import Control
from swarm.manager.events.feed import EventFeed
from swarm.manager.manager import Manager
from swarm.model.execs import ExecRunner
from swarm.model.host_offer import NO_OFFER, HostOffer
from swarm.model.objects import Cluster, JoinTokens, LimitedToken
from swarm.model.types import NodeRole, TLSInfo
from swarm.node.diagnosis import Diagnosis
from swarm.node.engine import EngineContainers, EngineImages, LocalEngine, LocalParts
from swarm.node.execs import HostExecs
from swarm.node.files import Paths
from swarm.node.lifecycle import Lifecycle, Own
from swarm.node.logs import ClusterLogs
from swarm.node.member import Member
from swarm.node.refusals import (
    NO_BACKUP_KEY,
    STARTING,
    UNCERTIFIED,
    list_peers,
)
from swarm.overlay.node_networks import NodeNetworks
from swarm.overlay.record_files import RecordFiles
from swarm.proto.roots import root_info
from swarm.secrets.archive import ArchiveKey, KeyKind, seal_archive
from swarm.store.etcd_process import DEFAULT_QUOTA_BYTES
from swarm.store.health import StoreState
from swarm.worker.images.store import ImageSettings, ImageStore
from swarm.worker.log_publisher import LogPublisher
from swarm.worker.runtime.containers import Containers
from swarm.worker.runtime.host import RuntimeChoice, detect_runtime
from swarm.worker.tasks import Tasks
from swarm.worker.volumes import VolumeStore


def _why_not_ready(member: Member, *, certified: bool) -> str:
    """The store first: without it neither a manager's session nor its certificate can be helped."""
    health = member.store_health
    if health is not None and health.state is not StoreState.STARTING:
        return health.message
    if not certified:
        return UNCERTIFIED
    return member.agent.problem or STARTING


class Host:
    """One host: its engine always, its membership while it has one; the API's `Backend` and `Swarm`."""

    def __init__(
        self,
        paths: Paths,
        clock: Clock,
        new_id: IdSource,
        insecure_registries: tuple[str, ...] = (),
        etcd_quota_bytes: int = DEFAULT_QUOTA_BYTES,
        offer: HostOffer = NO_OFFER,
    ) -> None:
        self._paths = paths
        self._clock = clock
        self._choice: RuntimeChoice = detect_runtime()
        paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.state.chmod(0o700)
        paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        volumes = VolumeStore(paths.volumes, clock)
        self._local = LocalParts(
            ImageStore(paths.images, ImageSettings(insecure_registries=insecure_registries)),
            Containers(
                state_dir=paths.state, run_dir=paths.run, choice=self._choice, volumes=volumes, clock=clock
            ),
            NodeNetworks(paths.networks, RecordFiles(paths.run / "network"), clock, new_id),
        )
        self._insecure_registries = insecure_registries
        self._labels = tuple(f"{key}={value}" for key, value in sorted(offer.labels.items()))
        own = Own(etcd_quota_bytes=etcd_quota_bytes, offer=offer)
        self._lifecycle = Lifecycle(paths, clock, new_id, self._local, own)
        self._execs = HostExecs(self._exec_runner)

    async def run(self) -> None:
        """Serve until cancelled. Containers outlive it."""
        await asyncio.to_thread(self._local.images.open)
        try:
            async with asyncio.TaskGroup() as group, serving(application(self), self._paths.socket):
                group.create_task(self._execs.run())
                await self._lifecycle.begin(group)
                await asyncio.Event().wait()
        finally:
            self._local.containers.close()
            self._local.images.close()

    async def announce_stop(self) -> None:
        """Before `run` is cancelled: the managers then wait for this node a while longer."""
        if (member := self._lifecycle.member) is not None:
            await member.announce_stop()

    # --- what the API asks for -----------------------------------------------------------------------------

    @property
    def swarm(self) -> Host:
        return self

    @property
    def control(self) -> Control | None:
        manager = self._manager
        return manager.control if manager else None

    @property
    def logs(self) -> ClusterLogs | None:
        manager = self._manager
        return ClusterLogs(manager.logs, manager.view, self._clock) if manager else None

    @property
    def events(self) -> EventFeed | None:
        return self._manager.events if self._manager else None

    @property
    def execs(self) -> HostExecs:
        return self._execs

    def _exec_runner(self, task_id: str) -> ExecRunner:
        """Who can run a command in the task: this host's own containers, else the managers."""
        member = self._lifecycle.member
        if member is not None and member.tasks.get(task_id) is not None:
            return member.execs.run
        if member is None or member.manager is None:
            raise NotFound("container", task_id)
        return member.manager.execs.run

    @property
    def engine(self) -> LocalEngine:
        containers = EngineContainers(self._tasks, self._log_publisher, self._local)
        images = EngineImages(self._local.images)
        return LocalEngine(
            state_dir=str(self._paths.state),
            runtime=self._choice.name,
            labels=self._labels,
            insecure_registries=self._insecure_registries,
            images=images,
            containers=containers,
            networks=self._local.networks,
        )

    @property
    def system(self) -> Diagnosis:
        member = self._lifecycle.member
        return Diagnosis(self._choice, lambda: member, lambda: self._lifecycle.identity, self._clock)

    def status(self) -> SwarmStatus:
        member, identity = self._lifecycle.member, self._lifecycle.identity
        if self._lifecycle.is_locked:
            return SwarmStatus(state=NodeMembership.LOCKED)
        if member is None or identity is None:
            return SwarmStatus()
        manager = member.manager
        is_ready = manager is not None or member.membership.role is NodeRole.WORKER
        certified = counts(identity, self._clock.now())
        return SwarmStatus(
            state=NodeMembership.ACTIVE if is_ready else NodeMembership.PENDING,
            node_id=identity.subject.node_id,
            node_addr=member.membership.advertise_address,
            is_manager=member.membership.role is NodeRole.MANAGER,
            leader_id=manager.leader_id if manager else "",
            managers=list_peers(member),
            error=member.agent.problem if is_ready else _why_not_ready(member, certified=certified),
        )

    def join_tokens(self, cluster: Cluster) -> JoinTokens:
        tokens = cluster.root_ca.join_tokens
        return JoinTokens(
            worker=token_text(cluster.root_ca, tokens.worker),
            manager=token_text(cluster.root_ca, tokens.manager),
        )

    def token_text(self, cluster: Cluster, token: LimitedToken) -> str:
        return token_text(cluster.root_ca, token.secret)

    def tls_info(self, cluster: Cluster) -> TLSInfo:
        return root_info(desired_root(cluster.root_ca))

    def backup(self, passphrase: Secret) -> bytes:
        """Everything stored, encrypted with the passphrase, or without one with the unlock key.

        Takes a while: call it in a thread. Raises: InvalidArgument when there is neither.
        """
        control = self.control
        if control is None:
            raise Unavailable(STARTING)
        text, kind = passphrase.reveal(), KeyKind.PASSPHRASE
        if not text:
            text, kind = control.cluster().unlock_key, KeyKind.UNLOCK_KEY
        if not text:
            raise InvalidArgument(NO_BACKUP_KEY)
        failpoint("backup.begin")
        archive = seal_archive(write_backup(control.view, self._clock.now()), ArchiveKey(kind, text))
        failpoint("backup.reply")
        return archive

    async def init(self, request: InitRequest) -> NodeID:
        return await self._lifecycle.init(request)

    async def restore(self, request: RestoreRequest) -> NodeID:
        return await self._lifecycle.restore(request)

    async def join(self, request: JoinRequest) -> None:
        await self._lifecycle.join(request)

    async def unlock(self, key: Secret) -> None:
        await self._lifecycle.unlock(key)

    async def leave(self, *, force: bool) -> None:
        await self._lifecycle.leave(force=force)

    # --- parts ---------------------------------------------------------------------------------------------

    @property
    def _manager(self) -> Manager | None:
        return self._lifecycle.member.manager if self._lifecycle.member else None

    def _tasks(self) -> Tasks | None:
        return self._lifecycle.member.tasks if self._lifecycle.member else None

    def _log_publisher(self) -> LogPublisher | None:
        return self._lifecycle.member.logs if self._lifecycle.member else None
