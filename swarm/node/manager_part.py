"""The manager's part of a node: its etcd, the store over it, and the manager; and how a node gets there.

A node that is to be a manager asks one for a place in the store, starts its etcd as a learner, tells how
far it is until it is a voter, and then serves. Each step is saved before the next: a kill -9 goes on there.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from swarm.base.aio import in_own_task
from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, SwarmError, Unavailable
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource
from swarm.base.log import get_logger
from swarm.manager.ca.certificates import counts
from swarm.manager.ca.etcd_ca import certify_member
from swarm.manager.generation import Expelled
from swarm.manager.manager import Listen, Manager, ManagerParts
from swarm.manager.members import Secrets, plan_recovery
from swarm.manager.upkeep import OwnMember
from swarm.model.defaults import CLUSTER_PORT, ETCD_PEER_PORT
from swarm.model.objects import Cluster, ManagerStatus, Node
from swarm.model.plan import Op
from swarm.model.types import NodeRole
from swarm.node.files import Membership, Paths
from swarm.node.own_certificate import certify_itself
from swarm.node.secrets_on_disk import load_secrets, save_data_keys, save_secrets
from swarm.node.store_place import StorePlace, secrets_of
from swarm.node.vault import Vault
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.identity import Identity
from swarm.store.continued import ContinuedKV, continue_after
from swarm.store.etcd import EtcdKV
from swarm.store.etcd_process import EtcdProcess, EtcdSettings, MemberRemoved, free_bytes
from swarm.store.external import ExternalEtcd, FailoverKV
from swarm.store.health import STARTING, Health, judge_damage
from swarm.store.kv import KV
from swarm.store.members import Members, MemberStatus
from swarm.store.refounding import refound
from swarm.store.store import Store

REFOUND_RETRY_S = 5.0
log = get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerNeeds:
    """What the manager's part gets from its node."""

    paths: Paths
    clock: Clock
    new_id: IdSource
    vault: Vault
    identity: Callable[[], Identity]
    use_certificate: Callable[[Identity], None]
    membership: Callable[[], Membership]
    save: Callable[[Membership], None]
    others: Callable[[], Sequence[str]]
    """Where other managers serve, host:port."""
    etcd_quota_bytes: int


@dataclass(frozen=True, slots=True)
class Seed:
    """What a new cluster starts with; it is committed before anything is served."""

    ops: tuple[Op, ...]
    after_revision: int = 0
    """Up to where the revisions of the cluster's former store went, if this one is restored."""


class _Rebuild(Exception):
    """Ends the manager's part, so that it starts again with a new member of the store."""


class ManagerPart:
    def __init__(self, needs: ManagerNeeds, seed: Seed | None = None) -> None:
        self._needs = needs
        self._others = StorePlace(needs.clock, needs.identity, needs.others)
        self._seed = seed
        self._manager: Manager | None = None
        self._served = asyncio.Event()
        self._etcd: EtcdProcess | None = None
        self._store: Store | None = None
        self.has_lost_place = False
        """`run` has ended, as the others go on without this member: it enters anew if it is wanted again."""
        self._place: pb.JoinStoreResponse | None = None
        self._replaced = asyncio.Event()
        self._external: ExternalEtcd | None = None

    @property
    def external(self) -> ExternalEtcd | None:
        """The store, when others run it."""
        return self._external

    @property
    def health(self) -> Health:
        """How this manager's store is."""
        if self._etcd is not None and self._etcd.problem is not None:
            return self._etcd.problem
        finding = self._store.damage if self._store is not None else ""
        if self._manager is not None:
            finding = self._manager.keeper.finding
        return judge_damage(finding) or (self._manager.keeper.health if self._manager else STARTING)

    @property
    def manager(self) -> Manager | None:
        """The manager, once it serves."""
        return self._manager

    async def serving(self) -> None:
        """Wait until the manager serves for the first time."""
        await self._served.wait()

    async def enter_store(self) -> None:
        """Get a place in the managers' store and save what is needed to take it.

        Raises: Unavailable; FailedPrecondition when this host cannot run a member.
        """
        self._take_place(await self._others.ask(self._needs.membership().advertise_address))

    async def repair(self, tell: Callable[[str], None]) -> None:
        """Have this manager's member of the store replaced by an empty one, which the others fill.

        Returns when the manager serves again; `tell` hears of each step. Its files are wiped only after
        another manager gave a place.
        Raises: FailedPrecondition when nothing is wrong; Unavailable when no other manager can help.
        """
        if self.health.serves:
            raise FailedPrecondition("this manager's part of the store is in order: nothing to repair")
        if self._external is not None:
            raise FailedPrecondition("the store is an etcd of your own: repair it with its own means")
        if not self._needs.others():
            raise FailedPrecondition(
                "no other manager has the state to repair this one from; its files are left as they are: "
                "restore them from a backup"
            )
        address = self._needs.membership().advertise_address
        self._place = await self._others.ask_for_another(address, tell)
        self._served.clear()
        self._replaced.set()
        await self.serving()

    async def certify(self) -> Identity:
        """A certificate that this manager signs for itself. Raises: SwarmError when it may not, or cannot."""
        if self._store is None or not self._store.revision:
            raise Unavailable("this manager's certificate waits for its store")
        return await certify_itself(self._store, self._needs.identity(), self._needs.clock)

    async def _ensure_certificate(self) -> None:
        """One that has ended is replaced before others are asked or served: they would not take it."""
        needs = self._needs
        if counts(needs.identity(), needs.clock.now()):
            return
        try:
            needs.use_certificate(await self.certify())
        except SwarmError as error:
            log.error("certificate.not.signed", reason=str(error))
        else:
            log.warning("certificate.signed", expires=str(needs.identity().subject.not_after))

    def _take_place(self, answer: pb.JoinStoreResponse) -> None:
        """Save what is needed to take it; whatever the store held here is wiped."""
        needs = self._needs
        membership = needs.membership()
        failpoint("manager.enter.answered")
        shutil.rmtree(needs.paths.etcd, ignore_errors=True)
        needs.vault.lock_with(answer.unlock_key, answer.next_unlock_key)
        save_secrets(needs.paths, needs.vault, secrets_of(answer))
        failpoint("manager.enter.keyed")
        needs.save(
            replace(
                membership,
                role=NodeRole.MANAGER,
                initial_cluster=answer.initial_cluster,
                member_id=f"{answer.member_id:x}",
                generation=answer.generation,
                is_voter=False,
            )
        )

    async def run(self) -> None:
        """Until cancelled, or until the cluster is found to have been recovered without this manager."""
        wanted = True
        while wanted:
            wanted = False
            try:
                await in_own_task(self._run())
            except* MemberRemoved as errors:
                self.has_lost_place = True
                log.warning("store.place.lost", reason=str(errors.exceptions[0]))
            except* Expelled:
                self.has_lost_place = True
                log.error("role.lost", reason="the swarm has been recovered without this manager")
            except* _Rebuild:
                assert self._place is not None, "it is set before the event"
                self._replaced.clear()
                self._take_place(self._place)
                wanted = True

    async def _run(self) -> None:
        needs = self._needs
        membership = needs.membership()
        secrets = load_secrets(needs.paths, needs.vault)
        self._external = secrets.external
        if secrets.external is not None:
            await self._run_external(secrets.external, secrets)
            return
        assert secrets.store_ca is not None, "the store is our own"
        files = certify_member(needs.paths.store_member, secrets.store_ca, membership.advertise_address)
        settings = EtcdSettings(
            name=needs.identity().subject.node_id,
            directory=needs.paths.etcd,
            peer_address=membership.advertise_address,
            files=files,
            initial_cluster=membership.initial_cluster,
            has_begun=membership.is_voter and self._seed is None,
            quota_bytes=needs.etcd_quota_bytes,
        )
        if membership.recover:
            await self._refound(settings)
        try:
            async with aclosing(EtcdKV(files.address())) as kv, asyncio.TaskGroup() as group:
                self._etcd = etcd = EtcdProcess(settings)
                group.create_task(etcd.run())
                group.create_task(self._until_replaced())
                await _serving(etcd)
                members = Members(kv.channel)
                if not membership.is_voter:
                    await self._catch_up(members)
                own = OwnMember(
                    members=members,
                    compactor=kv,
                    quota_bytes=needs.etcd_quota_bytes,
                    free_bytes=lambda: free_bytes(needs.paths.etcd),
                    problem=lambda: etcd.problem,
                )
                await self._serve(group, kv, own, secrets)
        finally:
            self._manager = self._etcd = self._store = None

    async def _refound(self, settings: EtcdSettings) -> None:
        """Until it is done: a full disk may get room, and the old data is whole until then."""
        while True:
            try:
                await refound(settings, mark=self._needs.new_id())
                return
            except* Unavailable as errors:
                log.error("store.not.refounded", reason=str(errors.exceptions[0]))
            await asyncio.sleep(REFOUND_RETRY_S)

    async def _run_external(self, external: ExternalEtcd, secrets: Secrets) -> None:
        """Over a store that others run: no process, no membership."""
        try:
            async with aclosing(FailoverKV(external)) as kv, asyncio.TaskGroup() as group:
                if not self._needs.membership().is_voter:
                    await self._catch_up(None)
                await self._serve(group, kv, None, secrets)
        finally:
            self._manager = self._store = None

    async def _until_replaced(self) -> None:
        await self._replaced.wait()
        raise _Rebuild

    async def leave_store(self) -> None:
        """Have another manager, if there is one, take this one out of the store; best effort."""
        await self._others.leave()

    async def _catch_up(self, members: Members | None) -> None:
        await self._others.catch_up(self._needs.membership(), members)
        failpoint("manager.catch_up.told")
        self._needs.save(replace(self._needs.membership(), is_voter=True))

    async def _serve(self, group: asyncio.TaskGroup, kv: KV, own: OwnMember | None, secrets: Secrets) -> None:
        needs = self._needs
        membership = needs.membership()
        if self._seed is not None and self._seed.after_revision:
            await continue_after(kv, self._seed.after_revision)
        self._store = store = Store(ContinuedKV(kv), secrets.ring, needs.clock)
        group.create_task(store.run())
        await store.ready()
        if membership.recover and own is not None:
            await self._recover(store, own.members)
        if self._seed is not None:
            await self._sow(store, self._seed, await own.members.status() if own else None)
        self._note_generation(store)
        await self._ensure_certificate()
        group.create_task(self._follow_lock(store))
        listen = Listen(
            address=membership.listen_address, join_port=membership.join_port, cluster_port=CLUSTER_PORT
        )
        manager = Manager(
            ManagerParts(
                store=store,
                member=own,
                secrets=secrets,
                save_data_keys=lambda data_keys: save_data_keys(needs.paths, needs.vault, data_keys),
                clock=needs.clock,
                new_id=needs.new_id,
                identity=needs.identity,
                listen=listen,
            )
        )
        group.create_task(manager.run())
        await manager.serving()
        failpoint("manager.serving")
        self._manager = manager
        self._served.set()

    def _note_generation(self, store: Store) -> None:
        """It changes by a recovery or a restore only, after which this part starts anew."""
        membership = self._needs.membership()
        for cluster in store.view.list(Cluster):
            if cluster.generation != membership.generation:
                self._needs.save(replace(membership, generation=cluster.generation))

    async def _sow(self, store: Store, seed: Seed, member: MemberStatus | None) -> None:
        """A backup's objects may be more than a transaction holds; nobody else writes yet."""
        ops = [_with_member(op, member) if member else op for op in seed.ops]
        failpoint("manager.sow.before")
        if await store.apply(ops) != len(ops):
            raise Unavailable("the new cluster's store is not empty; see swarmd's log")
        self._seed = None  # a member that is replaced later gets all from the others
        failpoint("manager.sow.after")

    async def _follow_lock(self, store: Store) -> None:
        """Lock the keys on disk as the cluster's record says, now and whenever that changes."""
        with store.changes(Cluster) as changes:
            while True:
                for cluster in store.view.list(Cluster):
                    self._needs.vault.lock_with(cluster.unlock_key, cluster.next_unlock_key)
                await changes.wait()

    async def _recover(self, store: Store, members: Members) -> None:
        """Record that this manager goes on alone: the others are workers now, in a new generation."""
        membership = self._needs.membership()
        member_id = (await members.status()).id
        await members.set_peer_url(member_id, f"https://{membership.advertise_address}:{ETCD_PEER_PORT}")
        status = ManagerStatus(
            addr=f"{membership.advertise_address}:{membership.join_port}", member_id=f"{member_id:x}"
        )
        me = self._needs.identity().subject.node_id
        await store.commit(plan_recovery(store.view, me, status))
        self._needs.save(replace(membership, recover=False))


async def _serving(etcd: EtcdProcess) -> None:
    while True:
        try:
            await etcd.serving()
        except Unavailable as error:
            log.error("etcd.not.serving", reason=str(error))
        else:
            return


def _with_member(op: Op, status: MemberStatus) -> Op:
    """The founder's own record gets the id of its member, which only the running store knows."""
    item = op.object
    if isinstance(item, Node) and item.manager_status is not None:
        manager = replace(item.manager_status, member_id=f"{status.id:x}")
        return replace(op, object=replace(item, manager_status=manager))
    return op
