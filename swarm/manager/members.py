"""How nodes become managers and stop being ones: the RPCs of the joining side, and the leader's role manager.

A node asks to join the store (it becomes a learner), catches up, and is made a voter; only then is it a
manager in the cluster's records. One that is to be demoted is taken out of the store first, then loses the
role in the records, and then changes its certificate. etcd refuses a second learner and any change that would
cost the quorum, so changes come one at a time whichever manager is asked.
Source: SwarmKit manager/role_manager.go; k3s pkg/etcd for the limit on stalled learners.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, NotFound, OutOfSequence, PermissionDenied, Unavailable
from swarm.base.failpoint import failpoint
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.manager.ca.certificates import is_being_demoted, is_manager, issue
from swarm.manager.ca.etcd_ca import EtcdCA
from swarm.manager.dead_members import LET_GO_S
from swarm.manager.execs import ExecBroker
from swarm.manager.logbroker import LogBroker, LogOptions, options_of, wire_line
from swarm.manager.upkeep import StoreKeeper
from swarm.model.defaults import ETCD_PEER_PORT
from swarm.model.objects import Cluster, ManagerStatus, Node, Task
from swarm.model.plan import Op, Update
from swarm.model.types import NodeRole
from swarm.model.view import ClusterView
from swarm.proto.gen import dispatcher_pb2, managers_pb2_grpc
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.rpc import Context, caller
from swarm.secrets.keyring import Keyring
from swarm.store.external import ExternalEtcd
from swarm.store.members import Member, Members
from swarm.store.store import Store

LOOK_EVERY_S = 1.0
STALLED_AFTER_S = 120.0
"""A learner that has not caught up by then is removed, so that others can join."""
CAUGHT_UP_ENTRIES = 200
WRITE_TRIES = 10

log = get_logger("members")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What managers share, and hand to a new one. `store_ca` is None with a store that others run."""

    ring: Keyring
    store_ca: EtcdCA | None
    external: ExternalEtcd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relays:
    """What reaches the nodes whose session is with this manager."""

    logs: LogBroker
    execs: ExecBroker


class NodeCA(managers_pb2_grpc.NodeCAServicer):
    def __init__(self, store: Store, clock: Clock, keeper: StoreKeeper) -> None:
        self._store = store
        self._clock = clock
        self._keeper = keeper

    async def RenewNodeCertificate(
        self, request: pb.RenewNodeCertificateRequest, context: Context
    ) -> pb.RenewNodeCertificateResponse:
        self._keeper.refuse_damaged()
        node, cluster = require_node(self._store), require_cluster(self._store)
        issued = issue(cluster, node, request.csr_pem, self._clock.now())
        failpoint("certificate.reply")
        return pb.RenewNodeCertificateResponse(
            certificate_pem=issued.certificate_pem, root_pem=issued.root_pem
        )


class ManagerMembers(managers_pb2_grpc.ManagersServicer):
    """The RPCs by which managers come and go. A store that others run (no `members`) needs no membership."""

    def __init__(
        self, store: Store, members: Members | None, secrets: Secrets, relays: Relays, keeper: StoreKeeper
    ) -> None:
        self._store = store
        self._members = members
        self._secrets = secrets
        self._logs = relays.logs
        self._execs = relays.execs
        self._keeper = keeper

    async def JoinStore(self, request: pb.JoinStoreRequest, context: Context) -> pb.JoinStoreResponse:
        node = self._require_wanted()
        cluster = require_cluster(self._store)
        answer = pb.JoinStoreResponse(
            data_keys=self._secrets.ring.data_keys,
            unlock_key=cluster.unlock_key,
            next_unlock_key=cluster.next_unlock_key,
            generation=cluster.generation,
        )
        if (external := self._secrets.external) is not None:
            answer.endpoints.extend(external.endpoints)
            answer.store_ca_certificate_pem = external.ca_pem
            answer.store_certificate_pem, answer.store_key_pem = external.cert_pem, external.key_pem
        if self._members is None or self._secrets.store_ca is None:
            return answer
        if not request.address:
            raise FailedPrecondition(f"node {node.id} cannot run a member of the store: it has no etcd")
        url = f"https://{request.address}:{ETCD_PEER_PORT}"
        members = await self._members.list()
        if request.replace:
            await self._drop_former(tuple(m for m in members if m.peer_url == url), "")
            await self._drop_former(members, node.id)
            members = await self._members.list()
        known = next((m for m in members if m.peer_url == url), None)
        if known is not None and known.name not in ("", node.id):
            raise Unavailable(f"another manager uses the address {request.address} already")
        if known is None:
            await self._drop_former(members, node.id)
            await self._members.add_learner(url)
            members = await self._members.list()
            log.info("member.added", node_id=node.id, address=request.address)
            failpoint("members.join.added")
        answer.initial_cluster = ",".join(
            f"{m.name or node.id}={m.peer_url}" for m in members if m.name or m.peer_url == url
        )
        answer.member_id = next(m.id for m in members if m.peer_url == url)
        failpoint("members.join.reply")
        answer.store_ca_certificate_pem = self._secrets.store_ca.certificate_pem
        answer.store_ca_key_pem = self._secrets.store_ca.key_pem
        return answer

    async def CatchUp(self, request: pb.CatchUpRequest, context: Context) -> pb.CatchUpResponse:
        node = self._require_wanted()
        if self._members is not None:
            member = next((m for m in await self._members.list() if m.id == request.member_id), None)
            if member is None or urlsplit(member.peer_url).hostname != _host(request.join_address):
                raise NotFound("member", f"{request.member_id:x}")
            if member.is_learner:
                own = await self._members.status()
                if request.applied_index + CAUGHT_UP_ENTRIES < own.applied_index:
                    return pb.CatchUpResponse(is_voter=False)
                await self._members.promote(member.id)
                log.info("member.promoted", node_id=node.id)
                failpoint("members.catch_up.promoted")
        status = ManagerStatus(addr=request.join_address, member_id=f"{request.member_id:x}")
        await change_manager(self._store, node.id, status)
        failpoint("members.catch_up.reply")
        return pb.CatchUpResponse(is_voter=True)

    async def LeaveStore(self, request: pb.LeaveStoreRequest, context: Context) -> pb.LeaveStoreResponse:
        self._keeper.refuse_damaged()
        await leave_store(self._store, self._members, require_node(self._store))
        failpoint("members.leave.reply")
        return pb.LeaveStoreResponse()

    async def Generation(self, request: pb.GenerationRequest, context: Context) -> pb.GenerationResponse:
        return pb.GenerationResponse(generation=require_cluster(self._store).generation)

    async def DataKeys(self, request: pb.DataKeysRequest, context: Context) -> pb.DataKeysResponse:
        self._require_wanted()
        return pb.DataKeysResponse(data_keys=self._secrets.ring.data_keys)

    async def StoreStatus(self, request: pb.StoreStatusRequest, context: Context) -> pb.StoreStatusResponse:
        return await self._keeper.status()

    async def HashStore(self, request: pb.HashStoreRequest, context: Context) -> pb.HashStoreResponse:
        found = await self._keeper.hash(request.revision)
        return pb.HashStoreResponse(hash=found.value, compact_revision=found.compact_revision)

    async def DefragmentStore(
        self, request: pb.DefragmentStoreRequest, context: Context
    ) -> pb.DefragmentStoreResponse:
        await self._keeper.defragment()
        return pb.DefragmentStoreResponse()

    async def ReadLogs(
        self, request: pb.ReadLogsRequest, context: Context
    ) -> AsyncIterator[dispatcher_pb2.LogMessage]:
        found = (self._store.view.get(Task, task_id) for task_id in request.task_ids)
        tasks = [task for task in found if task is not None]
        options: LogOptions = options_of(request.options)
        async with self._logs.read_local(tasks, options) as lines:
            async for line in lines:
                yield wire_line(line)

    def RunExec(
        self, request: AsyncIterator[dispatcher_pb2.ExecInputMessage], context: Context
    ) -> AsyncIterator[dispatcher_pb2.ExecOutputMessage]:
        return self._execs.serve_manager(request)

    def _require_wanted(self) -> Node:
        self._keeper.refuse_damaged()
        node = require_node(self._store)
        if node.spec.role is not NodeRole.MANAGER:
            raise PermissionDenied(f"node {node.id} is not to be a manager: promote it first")
        return node

    async def _drop_former(self, members: tuple[Member, ...], node_id: str) -> None:
        """A node that comes back with an empty disk or another address takes its own old place."""
        assert self._members is not None
        for member in members:
            if member.name == node_id:
                log.warning("member.replaced", node_id=node_id)
                await self._members.remove(member.id)


class RoleManager:
    """The leader's part: takes out of the store who is to leave it, and learners that have stalled."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        members: Members | None,
        me: NodeID,
        is_reachable: Callable[[NodeID], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._members = members
        self._me = me
        self._is_reachable = is_reachable
        self._learners: dict[int, float] = {}

    async def run(self) -> None:
        with self._store.changes(Node) as changes:
            while True:
                try:
                    await self._reconcile()
                except (Unavailable, OutOfSequence, NotFound) as error:
                    log.info("roles.unsettled", reason=str(error))
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await changes.wait()
                except TimeoutError:
                    continue

    async def _reconcile(self) -> None:
        for node in self._store.view.list(Node):
            if is_being_demoted(node) and node.id != self._me:
                if self._members is not None and not self._is_reachable(node.id):
                    await asyncio.sleep(LET_GO_S)
                await remove_manager(self._store, self._members, node)
        if self._members is not None:
            await self._remove_stalled(await self._members.list())

    async def _remove_stalled(self, members: tuple[Member, ...]) -> None:
        assert self._members is not None
        now = self._clock.monotonic()
        learners = {m.id for m in members if m.is_learner}
        self._learners = {m: self._learners.get(m, now) for m in learners}
        # One that is to be demoted is in the records until it is out: the leader never removes itself.
        wanted = {n.id for n in self._store.view.list(Node) if is_manager(n)}
        for member in members:
            stalled = member.is_learner and now - self._learners[member.id] > STALLED_AFTER_S
            if stalled or (member.name and member.name not in wanted):
                log.warning("member.removed", node_id=member.name, stalled=stalled)
                await self._members.remove(member.id)


def plan_recovery(view: ClusterView, me: NodeID, status: ManagerStatus) -> tuple[Op, ...]:
    """What is written when one manager goes on alone: the only one, in a new generation of the cluster."""
    ops: list[Op] = [
        Update(object=replace(cluster, generation=cluster.generation + 1)) for cluster in view.list(Cluster)
    ]
    for node in view.list(Node):
        if node.id == me:
            ops.append(Update(object=replace(node, manager_status=status)))
        elif is_manager(node):
            spec = replace(node.spec, role=NodeRole.WORKER)
            ops.append(Update(object=replace(node, spec=spec, manager_status=None)))
    return tuple(ops)


async def leave_store(store: Store, members: Members | None, node: Node) -> None:
    """Let a manager go that wants to. The wish is written first: whoever leads finishes what is cut short.

    Raises: Unavailable.
    """
    try:
        await change_manager(store, node.id, node.manager_status, NodeRole.WORKER)
    except Unavailable as error:
        # A full store takes no writes, but lets members go; and one that went unasked would cost the quorum.
        log.info("leave.unwritten", node_id=node.id, reason=str(error))
    failpoint("members.leave.wanted")
    await remove_manager(store, members, node, NodeRole.WORKER)


async def remove_manager(
    store: Store, members: Members | None, node: Node, role: NodeRole | None = None
) -> None:
    """Out of the store first, then out of the records. Raises: Unavailable."""
    if members is not None and node.manager_status is not None:
        failpoint("members.remove.before")
        await members.remove(int(node.manager_status.member_id, 16))
        failpoint("members.remove.removed")
    await change_manager(store, node.id, None, role)
    log.info("member.demoted", node_id=node.id)


async def change_manager(
    store: Store, node_id: NodeID, status: ManagerStatus | None, role: NodeRole | None = None
) -> None:
    """Write a node's manager status, and its role if one is given. Raises: NotFound, Unavailable."""
    for _ in range(WRITE_TRIES):
        node = store.view.get(Node, node_id)
        if node is None:
            raise NotFound("node", node_id)
        changed = replace(node, manager_status=status, spec=replace(node.spec, role=role or node.spec.role))
        if changed == node:
            return
        try:
            await store.commit([Update(object=changed)])
        except OutOfSequence:
            await asyncio.sleep(0.01)
        else:
            return
    raise Unavailable(f"node {node_id} kept changing; try again")


def require_node(store: Store) -> Node:
    """The calling node's record. Raises: PermissionDenied when it has been removed."""
    node = store.view.get(Node, caller().node_id)
    if node is None:
        raise PermissionDenied(f"node {caller().node_id} has been removed from the cluster")
    return node


def require_cluster(store: Store) -> Cluster:
    clusters = store.view.list(Cluster)
    if not clusters:
        raise Unavailable("the cluster is not ready yet; try again")
    return clusters[0]


def _host(address: str) -> str:
    return address.rpartition(":")[0]
