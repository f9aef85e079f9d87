"""A host's way into clusters, out of them, and back after a restart: one change at a time.

In: what the API asks for, and what the last run left on the disk. Out: a running `Member`, or none.
Invariant: everything of a membership is on disk before the membership itself, which is written last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from swarm.api.backend import InitRequest, JoinRequest, RestoreRequest
from swarm.api.call import LOCKED
from swarm.base.clock import Clock
from swarm.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    SwarmError,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource, NodeID
from swarm.base.log import Secret, get_logger
from swarm.manager.backup import Backup, read_backup
from swarm.manager.ca.etcd_ca import create_etcd_ca
from swarm.manager.members import Secrets
from swarm.model.defaults import CLUSTER_PORT, JOIN_PORT
from swarm.model.host_offer import HostOffer
from swarm.model.join_token import parse_token
from swarm.model.types import NodeRole
from swarm.node import addresses
from swarm.node.engine import LocalParts
from swarm.node.files import Membership, Paths, forget_membership, load_membership, save_membership
from swarm.node.founding import Foundation, choose_data_path, found_again, found_cluster, prepare_founder
from swarm.node.joining import Application, request_identity
from swarm.node.member import Member, Surroundings
from swarm.node.readmission import has_expired, readmit
from swarm.node.refusals import (
    ALREADY_IN,
    NOT_A_MANAGER,
    STILL_JOINING,
    leaving_text,
)
from swarm.node.secrets_on_disk import read_external, save_secrets
from swarm.node.vault import Vault, create_vault, open_vault
from swarm.overlay.data_path import DataPath
from swarm.proto.identity import Identity, load_identity, new_key, save_identity, write_private
from swarm.secrets.archive import open_archive
from swarm.secrets.box import new_data_key
from swarm.secrets.keyring import Keyring
from swarm.secrets.unlock import Locked
from swarm.store.external import ExternalEtcd, check_usable

START_TIMEOUT_S = 30.0
UNLOCK_TIMEOUT_S = 5.0
STOP_AGAIN_S = 10.0
JOIN_TIMEOUT_S = 20.0
"""As long as Docker's engine waits before it says that joining goes on in the background."""

log = get_logger("node")


@dataclass(slots=True)
class _Running:
    member: Member
    work: asyncio.Task[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What the host was started with."""

    etcd_quota_bytes: int
    offer: HostOffer


class Lifecycle:
    """Founds, joins, restores, recovers, unlocks and leaves."""

    def __init__(self, paths: Paths, clock: Clock, new_id: IdSource, local: LocalParts, own: Own) -> None:
        self._paths = paths
        self._clock = clock
        self._new_id = new_id
        self._local = local
        self._own = own
        self._identity: Identity | None = None
        self._vault: Vault | None = None
        self._locked: Membership | None = None
        """What this node is once somebody has given the unlock key."""
        self._running: _Running | None = None
        self._changing = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None

    @property
    def member(self) -> Member | None:
        return self._running.member if self._running else None

    @property
    def identity(self) -> Identity | None:
        return self._identity

    @property
    def is_locked(self) -> bool:
        return self._locked is not None

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Be what the disk says; members run in `group`."""
        self._group = group
        membership = load_membership(self._paths)
        if membership is None:
            await self._clean_up()
            return
        try:
            self._wake(membership)
        except Locked:
            self._locked = membership
            log.warning("swarm.locked", advice="unlock it with: swarm unlock")

    async def init(self, request: InitRequest) -> NodeID:
        """Found a cluster; acknowledged only when its first objects are stored."""
        async with self._changing:
            if request.force_new_cluster:
                return await self._recover(request)
            self._refuse_member()
            external = read_external(request.external_store) if request.external_store else None
            if external is not None:
                await check_usable(external)
            membership = await prepare_founder(request)
            return await self._found(
                membership, lambda address, now: found_cluster(request, address, now, self._new_id), external
            )

    async def restore(self, request: RestoreRequest) -> NodeID:
        """Found the cluster of a backup again, on this host alone; acknowledged when all of it is stored."""
        async with self._changing:
            self._refuse_member()
            backup = await asyncio.to_thread(_open_backup, request)
            failpoint("restore.opened")
            membership = await prepare_founder(request.place)
            return await self._found(membership, lambda address, now: found_again(backup, address, now))

    async def unlock(self, key: Secret) -> None:
        """Go on where the restart stopped. Raises: AlreadyExists, InvalidArgument, WrongUnlockKey."""
        async with self._changing:
            if self._locked is None:
                raise AlreadyExists("swarm is not locked")
            failpoint("unlock.asked")
            self._wake(self._locked, key.reveal())
            failpoint("unlock.opened")
            self._locked = None
            log.info("swarm.unlocked")
            try:
                await self._until_connected(UNLOCK_TIMEOUT_S, "the store waits for other managers")
                await self._confirm(key)
            except Unavailable as error:
                log.warning("unlock.not.serving.yet", reason=str(error))  # others may be locked, too
            failpoint("unlock.reply")

    async def _confirm(self, key: Secret) -> None:
        """Who unlocks with a key that nobody was known to have has it."""
        manager = self.member.manager if self.member is not None else None
        if manager is not None:
            await manager.control.confirm_unlock_key(key.reveal())

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
        secrets = Secrets(ring=Keyring([new_data_key()]), store_ca=store_ca, external=external)
        save_secrets(self._paths, self._vault, secrets)
        failpoint("node.init.keyed")
        self._replace_identity(foundation.identity)
        member = Member(self._surroundings(), membership, foundation.seed)
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
                data_path_address=await choose_data_path(request.data_path_addr, advertised),
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
            if self._running is not None and has_expired(self._identity, self._clock.now()):
                await self._readmit(self._running.member.membership, request)
                return
            self._refuse_member()
            token = parse_token(request.token.reveal())
            remote = _remote_of(request)
            advertised = await addresses.source_towards(*addresses.split_port(remote, JOIN_PORT))
            if request.advertise_addr:
                local = await addresses.local_addresses()
                advertised, _ = addresses.choose_advertised(request.advertise_addr, local)
            data_path = await choose_data_path(request.data_path_addr, advertised)
            key = self._pending_key()
            wanted = Application(
                token=token, key_pem=key, availability=request.availability, address=advertised
            )
            failpoint("node.join.keyed")
            identity = await request_identity(remote, wanted, self._clock)
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
            self._paths.pending_key.unlink()
            self._start(Member(self._surroundings(), membership))
            await self._until_connected(JOIN_TIMEOUT_S, STILL_JOINING)

    async def _readmit(self, membership: Membership, request: JoinRequest) -> None:
        """The node keeps its key, its id and its containers."""
        identity, remote = self._require_identity(), _remote_of(request)
        identity, membership = await readmit(identity, membership, request, remote, self._clock)
        await self._stop()
        self._replace_identity(identity)
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

    # --- how it gets there ---
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
            etcd_quota_bytes=self._own.etcd_quota_bytes,
            offer=self._own.offer,
        )

    def _require_identity(self) -> Identity:
        if self._identity is None:
            raise FailedPrecondition(f"the node's certificate is missing from {self._paths.identity}")
        return self._identity

    def _replace_identity(self, identity: Identity) -> None:
        assert self._vault is not None, "made before the identity"
        save_identity(self._paths.identity, identity, self._vault.seal)
        self._identity = identity

    def _pending_key(self) -> bytes:
        """The key of an attempt to join whose answer was lost: asking again with it gives the same node."""
        path = self._paths.pending_key
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


def _remote_of(request: JoinRequest) -> str:
    """The manager to ask, host:port. Raises: FailedPrecondition, InvalidArgument."""
    if not request.remote_addrs:
        raise FailedPrecondition("at least 1 RemoteAddr is required to join")
    return ":".join(map(str, addresses.split_port(request.remote_addrs[0], JOIN_PORT)))


def _open_backup(request: RestoreRequest) -> Backup:
    """The whole of it is checked before anything is written. Raises: InvalidArgument, PermissionDenied."""
    return read_backup(open_archive(request.archive, request.key.reveal()))
