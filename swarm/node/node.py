"""The composition root: builds the parts of one host, serves its API, takes it into clusters and out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from swarm.api.app import application, serving
from swarm.api.backend import InitRequest, JoinRequest, NodeMembership, RestoreRequest, SwarmStatus
from swarm.api.call import LOCKED
from swarm.base.clock import Clock
from swarm.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SwarmError,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource, NodeID
from swarm.base.log import Secret, get_logger
from swarm.manager.backup import Backup, read_backup, write_backup
from swarm.manager.ca.etcd_ca import create_etcd_ca
from swarm.manager.ca.root import token_text
from swarm.manager.ca.rotation import desired_root
from swarm.manager.control.control import Control
from swarm.manager.events.feed import EventFeed
from swarm.manager.members import Secrets
from swarm.model.defaults import CLUSTER_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT, JOIN_PORT
from swarm.model.execs import ExecRunner
from swarm.model.host_offer import NO_OFFER, HostOffer
from swarm.model.join_token import parse_token
from swarm.model.objects import Cluster, JoinTokens, LimitedToken
from swarm.model.types import NodeRole, TLSInfo
from swarm.node import addresses
from swarm.node.diagnosis import Diagnosis
from swarm.node.engine import EngineContainers, EngineImages, LocalEngine, LocalParts
from swarm.node.execs import HostExecs
from swarm.node.files import Membership, Paths, forget_membership, load_membership, save_membership
from swarm.node.founding import Foundation, found_again, found_cluster
from swarm.node.joining import Application, request_identity
from swarm.node.logs import ClusterLogs
from swarm.node.member import Member, Surroundings
from swarm.node.refusals import (
    ALREADY_IN,
    NO_BACKUP_KEY,
    NOT_A_MANAGER,
    STARTING,
    STILL_JOINING,
    leaving_text,
    list_peers,
)
from swarm.node.secrets_on_disk import read_external, save_secrets
from swarm.node.vault import Vault, create_vault, open_vault
from swarm.overlay.data_path import DataPath
from swarm.proto.identity import Identity, load_identity, new_key, save_identity, write_private
from swarm.proto.roots import root_info
from swarm.secrets.archive import ArchiveKey, KeyKind, open_archive, seal_archive
from swarm.secrets.box import new_data_key
from swarm.secrets.unlock import Locked
from swarm.store.etcd_process import DEFAULT_QUOTA_BYTES, check_version
from swarm.store.external import ExternalEtcd, check_usable
from swarm.store.health import StoreState
from swarm.worker.images.store import ImageSettings, ImageStore
from swarm.worker.log_publisher import LogPublisher
from swarm.worker.runtime.containers import Containers
from swarm.worker.runtime.host import RuntimeChoice, detect_runtime
from swarm.worker.tasks import Tasks
from swarm.worker.volumes import VolumeStore

START_TIMEOUT_S = 30.0
UNLOCK_TIMEOUT_S = 5.0
STOP_AGAIN_S = 10.0
JOIN_TIMEOUT_S = 20.0
"""As long as Docker's engine waits before it says that joining goes on in the background."""

log = get_logger("node")


def _why_not_ready(member: Member) -> str:
    health = member.store_health
    return STARTING if health is None or health.state is StoreState.STARTING else health.message


@dataclass(slots=True)
class _Running:
    member: Member
    work: asyncio.Task[None]


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
        self._offer = offer
        self._etcd_quota_bytes = etcd_quota_bytes
        self._paths = paths
        self._clock = clock
        self._new_id = new_id
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
        )
        self._identity: Identity | None = None
        self._vault: Vault | None = None
        self._locked: Membership | None = None
        """What this node is once somebody has given the unlock key."""
        self._running: _Running | None = None
        self._changing = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._execs = HostExecs(self._exec_runner)

    async def run(self) -> None:
        """Serve until cancelled. Containers outlive it."""
        await asyncio.to_thread(self._local.images.open)
        try:
            async with asyncio.TaskGroup() as group, serving(application(self), self._paths.socket):
                self._group = group
                group.create_task(self._execs.run())
                membership = load_membership(self._paths)
                if membership is None:
                    await self._clean_up()
                else:
                    try:
                        self._wake(membership)
                    except Locked:
                        self._locked = membership
                        log.warning("swarm.locked", advice="unlock it with: swarm unlock")
                await asyncio.Event().wait()
        finally:
            self._local.containers.close()
            self._local.images.close()

    async def announce_stop(self) -> None:
        """Before `run` is cancelled: the managers then wait for this node a while longer."""
        if self._running is not None:
            await self._running.member.announce_stop()

    # --- what the API asks for -----------------------------------------------------------------------------

    @property
    def swarm(self) -> Host:
        return self

    @property
    def control(self) -> Control | None:
        manager = self._running.member.manager if self._running else None
        return manager.control if manager else None

    @property
    def logs(self) -> ClusterLogs | None:
        manager = self._running.member.manager if self._running else None
        return ClusterLogs(manager.logs, manager.view, self._clock) if manager else None

    @property
    def events(self) -> EventFeed | None:
        manager = self._running.member.manager if self._running else None
        return manager.events if manager else None

    @property
    def execs(self) -> HostExecs:
        return self._execs

    def _exec_runner(self, task_id: str) -> ExecRunner:
        """Who can run a command in the task: this host's own containers, else the managers."""
        member = self._running.member if self._running else None
        if member is not None and member.tasks.get(task_id) is not None:
            return member.execs.run
        if member is None or member.manager is None:
            raise NotFound("container", task_id)
        return member.manager.execs.run

    @property
    def engine(self) -> LocalEngine:
        containers = EngineContainers(self._tasks, self._log_publisher, self._local)
        images = EngineImages(self._local.images)
        return LocalEngine(str(self._paths.state), self._choice.name, images, containers)

    @property
    def system(self) -> Diagnosis:
        member = self._running.member if self._running else None
        return Diagnosis(self._choice, lambda: member, lambda: self._identity)

    def status(self) -> SwarmStatus:
        if self._locked is not None:
            return SwarmStatus(state=NodeMembership.LOCKED)
        if self._running is None or self._identity is None:
            return SwarmStatus()
        member = self._running.member
        manager = member.manager
        is_ready = manager is not None or member.membership.role is NodeRole.WORKER
        return SwarmStatus(
            state=NodeMembership.ACTIVE if is_ready else NodeMembership.PENDING,
            node_id=self._identity.subject.node_id,
            node_addr=member.membership.advertise_address,
            is_manager=member.membership.role is NodeRole.MANAGER,
            leader_id=manager.leader_id if manager else "",
            managers=list_peers(member),
            error=member.agent.problem or ("" if is_ready else _why_not_ready(member)),
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

    async def init(self, request: InitRequest) -> NodeID:
        """Found a cluster; acknowledged only when its first objects are stored."""
        async with self._changing:
            if request.force_new_cluster:
                return await self._recover(request)
            self._refuse_member()
            external = read_external(request.external_store) if request.external_store else None
            if external is not None:
                await check_usable(external)
            membership = await self._prepare_founder(request)
            return await self._found(
                membership, lambda address, now: found_cluster(request, address, now, self._new_id), external
            )

    async def restore(self, request: RestoreRequest) -> NodeID:
        """Found the cluster of a backup again, on this host alone; acknowledged when all of it is stored."""
        async with self._changing:
            self._refuse_member()
            backup = await asyncio.to_thread(_open_backup, request)
            membership = await self._prepare_founder(request.place)
            return await self._found(membership, lambda address, now: found_again(backup, address, now))

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
        return seal_archive(write_backup(control.view, self._clock.now()), ArchiveKey(kind, text))

    async def unlock(self, key: Secret) -> None:
        """Go on where the restart stopped. Raises: AlreadyExists, InvalidArgument, WrongUnlockKey."""
        async with self._changing:
            if self._locked is None:
                raise AlreadyExists("swarm is not locked")
            self._wake(self._locked, key.reveal())
            self._locked = None
            log.info("swarm.unlocked")
            try:
                await self._until_connected(UNLOCK_TIMEOUT_S, "the store waits for other managers")
            except Unavailable as error:
                log.warning("unlock.not.serving.yet", reason=str(error))  # others may be locked, too

    async def _prepare_founder(self, request: InitRequest) -> Membership:
        if request.external_store is None:
            await check_version()
        membership = await self._founder(request)
        ports = (membership.join_port, CLUSTER_PORT)
        addresses.ensure_free(membership.listen_address, ports)
        if request.external_store is not None:
            return membership
        addresses.ensure_free(membership.advertise_address, (ETCD_PEER_PORT,))
        addresses.ensure_free("127.0.0.1", (ETCD_CLIENT_PORT,))
        return membership

    async def _found(
        self,
        membership: Membership,
        found: Callable[[str, datetime], Foundation],
        external: ExternalEtcd | None = None,
    ) -> NodeID:
        """Everything on disk before it is stored; the membership last of all."""
        await self._clean_up()
        now = self._clock.now()
        foundation = found(f"{membership.advertise_address}:{membership.join_port}", now)
        self._vault = create_vault(self._paths.identity, foundation.unlock_key)
        store_ca = create_etcd_ca(now) if external is None else None
        secrets = Secrets(data_key=new_data_key(), store_ca=store_ca, external=external)
        save_secrets(self._paths, self._vault, secrets)
        failpoint("node.init.keyed")
        self._replace_identity(foundation.identity)
        member = Member(self._surroundings(), membership, foundation.objects)
        await self._begin(member, START_TIMEOUT_S, "the cluster did not start in time; see swarmd's log")
        failpoint("node.init.stored")
        save_membership(self._paths, member.membership)
        return foundation.identity.subject.node_id

    async def _recover(self, request: InitRequest) -> NodeID:
        """Go on with this manager alone, from its own copy of the state; the others lose the role."""
        if self._locked is not None:
            raise Unavailable(LOCKED)
        if self._running is None or self._running.member.membership.role is not NodeRole.MANAGER:
            raise Unavailable(NOT_A_MANAGER)
        if self._running.member.external_store is not None:
            raise FailedPrecondition("the store is an etcd of your own: recover it with its own means")
        membership = self._running.member.membership
        if request.advertise_addr:
            advertised, port = addresses.choose_advertised(
                request.advertise_addr, await addresses.local_addresses()
            )
            membership = replace(
                membership,
                advertise_address=advertised,
                data_path_address=await self._data_path(request.data_path_addr, advertised),
                join_port=port,
            )
        own = f"{membership.advertise_address}:{CLUSTER_PORT}"
        membership = replace(membership, managers=(own,), initial_cluster="", is_voter=True, recover=True)
        await self._stop()
        save_membership(self._paths, membership)
        self._start(Member(self._surroundings(), membership))
        await self._until_connected(START_TIMEOUT_S, "the cluster did not start in time; see swarmd's log")
        return self._require_identity().subject.node_id

    async def join(self, request: JoinRequest) -> None:
        """Become a node of the cluster that the token is of; the token also tells the role."""
        async with self._changing:
            self._refuse_member()
            token = parse_token(request.token.reveal())
            if not request.remote_addrs:
                raise FailedPrecondition("at least 1 RemoteAddr is required to join")
            remote = ":".join(map(str, addresses.split_port(request.remote_addrs[0], JOIN_PORT)))
            advertised = addresses.source_towards(*addresses.split_port(remote, JOIN_PORT))
            if request.advertise_addr:
                local = await addresses.local_addresses()
                advertised, _ = addresses.choose_advertised(request.advertise_addr, local)
            data_path = await self._data_path(request.data_path_addr, advertised)
            key = self._pending_key()
            wanted = Application(token=token, key_pem=key, availability=request.availability)
            failpoint("node.join.keyed")
            identity = await request_identity(remote, wanted)
            failpoint("node.join.answered")
            await self._clean_up()
            self._vault = create_vault(self._paths.identity)
            self._replace_identity(identity)
            membership = Membership(
                role=NodeRole.WORKER,
                advertise_address=advertised,
                data_path_address=data_path,
                listen_address=addresses.choose_listen(request.listen_addr),
                join_port=JOIN_PORT,
                managers=(f"{addresses.split_port(remote, JOIN_PORT)[0]}:{CLUSTER_PORT}",),
            )
            save_membership(self._paths, membership)
            self._start(Member(self._surroundings(), membership))
            await self._until_connected(JOIN_TIMEOUT_S, STILL_JOINING)

    async def leave(self, *, force: bool) -> None:
        async with self._changing:
            if self._locked is not None:
                await self._leave_locked(force=force)
                return
            if self._running is None:
                raise Unavailable("This node is not part of a swarm")
            member = self._running.member
            if member.membership.role is NodeRole.MANAGER and not force:
                raise Unavailable(leaving_text(member))
            await member.leave()
            failpoint("node.leave.left")
            await self._stop()
            await self._remove_containers()
            await member.dismantle()
            failpoint("node.leave.dismantled")
            await asyncio.to_thread(forget_membership, self._paths)
            self._identity = None
            log.info("swarm.left")

    async def _leave_locked(self, *, force: bool) -> None:
        if not force:
            raise Unavailable(LOCKED)
        await self._clean_up()
        self._locked = None
        log.info("swarm.left")

    # --- how it gets there ---------------------------------------------------------------------------------

    def _tasks(self) -> Tasks | None:
        return self._running.member.tasks if self._running else None

    def _log_publisher(self) -> LogPublisher | None:
        return self._running.member.logs if self._running else None

    def _refuse_member(self) -> None:
        if self._running is not None or self._locked is not None:
            raise Unavailable(ALREADY_IN)

    def _surroundings(self) -> Surroundings:
        assert self._vault is not None, "made before the member"
        return Surroundings(
            vault=self._vault,
            paths=self._paths,
            local=self._local,
            clock=self._clock,
            new_id=self._new_id,
            identity=self._require_identity,
            set_identity=self._replace_identity,
            etcd_quota_bytes=self._etcd_quota_bytes,
            offer=self._offer,
        )

    def _require_identity(self) -> Identity:
        if self._identity is None:
            raise FailedPrecondition(f"the node's certificate is missing from {self._paths.identity}")
        return self._identity

    def _replace_identity(self, identity: Identity) -> None:
        assert self._vault is not None, "made before the identity"
        save_identity(self._paths.identity, identity, self._vault.seal)
        self._identity = identity

    async def _founder(self, request: InitRequest) -> Membership:
        local = await addresses.local_addresses()
        advertised, port = addresses.choose_advertised(request.advertise_addr, local)
        if advertised not in {a.address for a in local}:
            raise FailedPrecondition(f"advertise address {advertised} is not an address of this host")
        return Membership(
            role=NodeRole.MANAGER,
            advertise_address=advertised,
            data_path_address=await self._data_path(request.data_path_addr, advertised),
            listen_address=addresses.choose_listen(request.listen_addr),
            join_port=port,
            managers=(f"{advertised}:{CLUSTER_PORT}",),
        )

    async def _data_path(self, wanted: str, advertised: str) -> str:
        if not wanted:
            return advertised
        return addresses.choose_advertised(wanted, await addresses.local_addresses())[0]

    def _pending_key(self) -> bytes:
        """The key of an attempt to join whose answer was lost: asking again with it gives the same node."""
        path = self._paths.identity / "pending.key"
        with suppress(FileNotFoundError):
            return path.read_bytes()
        self._paths.identity.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = new_key()
        write_private(path, key)
        return key

    async def _clean_up(self) -> None:
        """Remove what a cluster that this node is no longer in has left."""
        await self._remove_containers()
        if (self._paths.run / "network").exists():
            leftover = DataPath(local_address="127.0.0.1", run_dir=self._paths.run)
            await leftover.start()
            await leftover.close(remove=True)
        await asyncio.to_thread(forget_membership, self._paths)

    async def _remove_containers(self) -> None:
        await self._local.containers.adopt(())
        for container_id in self._local.images.retained():
            self._local.images.release(container_id)

    def _wake(self, membership: Membership, unlock_key: str = "") -> None:
        """Be a node again after a restart. Raises: Locked, WrongUnlockKey, InvalidArgument."""
        vault = open_vault(self._paths.identity, unlock_key)
        if membership.role is NodeRole.WORKER:
            vault.lock_with("")  # it was a manager when the lock was closed
        self._vault = vault
        self._identity = load_identity(self._paths.identity, vault.open)
        self._start(Member(self._surroundings(), membership))

    def _start(self, member: Member) -> None:
        assert self._group is not None, "run() is running"
        self._running = _Running(member, self._group.create_task(self._supervise(member)))

    async def _supervise(self, member: Member) -> None:
        """A part that fails ends the process (the service manager starts it again), but for founding."""
        try:
            await member.run()
        except* SwarmError as errors:
            if load_membership(self._paths) is not None:
                raise
            log.error("member.failed", reason=str(errors.exceptions[0]))

    async def _begin(self, member: Member, timeout_s: float, complaint: str) -> None:
        """Start a founder and wait; undo everything when it does not come up."""
        self._start(member)
        try:
            await self._until_connected(timeout_s, complaint)
        except BaseException:
            await self._stop()
            await asyncio.to_thread(forget_membership, self._paths)
            self._identity = None
            raise

    async def _until_connected(self, timeout_s: float, complaint: str) -> None:
        assert self._running is not None
        running = self._running
        connected = asyncio.ensure_future(running.member.connected())
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait({connected, running.work}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise Unavailable(complaint) from None
        finally:
            connected.cancel()
        if running.work.done():
            raise Unavailable("the cluster could not be started; see swarmd's log")

    async def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            while not running.work.done():
                running.work.cancel()
                _, pending = await asyncio.wait({running.work}, timeout=STOP_AGAIN_S)
                if pending:
                    log.warning("member.stops.slowly")


def _open_backup(request: RestoreRequest) -> Backup:
    """The whole of it is checked before anything is written. Raises: InvalidArgument, PermissionDenied."""
    return read_backup(open_archive(request.archive, request.key.reveal()))
