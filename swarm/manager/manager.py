"""One manager: the servers that nodes talk to and, while it leads, the loops that decide."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import grpc.aio

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, Unavailable, from_grpc
from swarm.base.ids import IdSource, NodeID, ServiceID, TaskID
from swarm.base.log import get_logger
from swarm.manager.allocator.allocate import concerns_allocation, plan_allocation
from swarm.manager.autoscaler import Autoscaler
from swarm.manager.beats import ManagerBeats
from swarm.manager.ca.join_site import JoinSite
from swarm.manager.ca.rotation import plan_rotation
from swarm.manager.control.control import Control
from swarm.manager.control.payloads import users_of
from swarm.manager.data_key import DataKeyRotation, Held
from swarm.manager.dead_members import DeadMembers
from swarm.manager.dispatcher.server import Dispatcher
from swarm.manager.events.feed import EventFeed
from swarm.manager.execs import ExecBroker
from swarm.manager.fencing import Fencing
from swarm.manager.generation import GenerationWatch
from swarm.manager.liveness import Liveness
from swarm.manager.logbroker import LogBroker, LogOptions, wire_options
from swarm.manager.loop import PlanLoop, Planner, whole
from swarm.manager.members import ManagerMembers, NodeCA, Relays, RoleManager, Secrets
from swarm.manager.orchestrator.autoscale import Usage
from swarm.manager.orchestrator.dependencies import dependents_of
from swarm.manager.orchestrator.enforcer import plan_enforcement
from swarm.manager.orchestrator.reaper import concerns_reaper, plan_reaper
from swarm.manager.orchestrator.service import list_service_ids, plan_service
from swarm.manager.scheduling import scheduler_planner
from swarm.manager.tunnel_keys import plan_tunnel_keys
from swarm.manager.upkeep import OwnMember, StoreKeeper
from swarm.manager.usage import UsageBook, usage_of
from swarm.model.objects import Cluster, Config, ManagerStatus, Network, Node, Secret, Service, Task
from swarm.model.types import NodeRole
from swarm.model.view import ClusterView
from swarm.proto.gen import dispatcher_pb2, dispatcher_pb2_grpc, managers_pb2, managers_pb2_grpc
from swarm.proto.identity import Identity
from swarm.proto.rpc import Guard, guarded_server, open_channel, server_credentials, translated
from swarm.store import keys
from swarm.store.changes import Change, ObjectKey
from swarm.store.election import Election
from swarm.store.members import Members
from swarm.store.peer_connections import end_connections
from swarm.store.store import Store

STOP_GRACE_S = 0.5
ASK_S = 2.0

log = get_logger("manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where a manager serves: `address` may be 0.0.0.0."""

    address: str
    join_port: int
    cluster_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerParts:
    """What a manager is built from. `member` is None with a store that others run."""

    store: Store
    member: OwnMember | None
    secrets: Secrets
    save_data_keys: Callable[[Sequence[bytes]], None]
    """Onto this manager's disk, in place of those that are there."""
    clock: Clock
    new_id: IdSource
    identity: Callable[[], Identity]
    listen: Listen

    @property
    def members(self) -> Members | None:
        return self.member.members if self.member else None


class Manager:
    def __init__(self, parts: ManagerParts) -> None:
        self._parts = parts
        self._store = parts.store
        self._clock = parts.clock
        self._new_id = parts.new_id
        self._identity = parts.identity
        self._listen = parts.listen
        self._me = parts.identity().subject.node_id
        self._beats = ManagerBeats(parts.store, parts.clock, self._me, parts.secrets.ring)
        self.control = Control(parts.store, parts.clock, parts.new_id, self.is_reachable)
        self.logs = LogBroker(parts.store, parts.new_id, self._read_elsewhere)
        self.execs = ExecBroker(parts.store, parts.new_id, self._channel)
        self.keeper = StoreKeeper(parts.store, parts.member, self._beats, parts.clock, parts.identity)
        held = Held(ring=parts.secrets.ring, save=parts.save_data_keys)
        self.data_key = DataKeyRotation(parts.store, self._me, held, self._ask_data_keys)
        self.events = EventFeed(parts.store, parts.clock)
        self._election = Election(parts.store, parts.clock, self._me, self._lead, self._may_lead)
        self._usage = UsageBook(parts.store.view, parts.clock)
        self._serving = asyncio.Event()

    @property
    def view(self) -> ClusterView:
        return self._store.view

    @property
    def leader_id(self) -> str:
        """The node that leads, as far as this manager knows."""
        leader = self._store.raw(keys.LEADER)
        return leader.value.decode() if leader else ""

    def is_reachable(self, node_id: NodeID) -> bool:
        """Whether that manager has been heard of lately."""
        return node_id == self._me or self._beats.is_reachable(node_id)

    @property
    def is_trustworthy(self) -> bool:
        """Whether what this manager reads may be believed."""
        return self.keeper.is_trustworthy

    @property
    def known_s_ago(self) -> float:
        """How old what the store shows here can be."""
        return self._beats.known_s_ago

    async def sync(self) -> None:
        """Make reads from `view` linearisable. Raises: Unavailable without a quorum."""
        await self._store.sync()

    async def serving(self) -> None:
        """Wait until nodes can connect."""
        await self._serving.wait()

    async def run(self) -> None:
        """Until cancelled. The store's mirror must be running already."""
        await self._store.ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.events.run())
            dispatcher = Dispatcher(self._store, self._clock, self._new_id, self._me, self)
            generation = GenerationWatch(self._store, self._me, self._identity)
            group.create_task(generation.run())
            await generation.asked()
            group.create_task(self._beats.run())
            group.create_task(self._election.run())
            group.create_task(self.keeper.run())
            group.create_task(self.data_key.run())
            group.create_task(self._hand_raft_on())
            if self._parts.member is not None:
                group.create_task(DeadMembers(self._store, self.is_reachable, end_connections).run())
            group.create_task(dispatcher.run())
            joins = JoinSite(self._store, self._clock, self._identity, self.keeper.refuse_damaged)
            group.create_task(joins.run(self._listen.address, self._listen.join_port))
            group.create_task(self._serve_nodes(dispatcher))

    async def _lead(self, epoch: int) -> None:
        log.info("leader.starts", epoch=epoch)
        async with asyncio.TaskGroup() as group:
            for planner in self._planners():
                group.create_task(PlanLoop(planner, self._store, self._clock, epoch).run(), name=planner.name)
            scaler = Autoscaler(self._store, self._clock, epoch, self._usage.current, self._ask_usage)
            group.create_task(scaler.run(self._me))
            group.create_task(Liveness(self._store, self._clock, epoch, self._beats.has_gone).run())
            group.create_task(Fencing(self._store, self._clock, epoch).run())
            group.create_task(self.data_key.lead(epoch))
            group.create_task(self._role_manager().run())

    def _role_manager(self) -> RoleManager:
        return RoleManager(self._store, self._clock, self._parts.members, self._me, self.is_reachable)

    def _may_lead(self) -> bool:
        node = self._store.view.get(Node, self._me)
        if not self.keeper.is_trustworthy:
            return False
        return node is not None and node.spec.role is NodeRole.MANAGER and node.manager_status is not None

    async def _hand_raft_on(self) -> None:
        """A manager that is to be demoted gives raft's leadership up first, so that its removal is smooth."""
        members = self._parts.members
        with self._store.changes(Node) as changes:
            while True:
                await changes.wait()
                if members is None or self._may_lead():
                    continue
                try:
                    status = await members.status()
                    voters = [m for m in await members.list() if not m.is_learner and m.id != status.id]
                    if voters and status.leader == status.id:
                        await members.move_leader(voters[0].id)
                except Unavailable as error:
                    log.info("raft.kept", reason=str(error))

    async def _read_elsewhere(
        self, manager_id: NodeID, task_ids: Iterable[str], options: LogOptions
    ) -> AsyncGenerator[dispatcher_pb2.LogMessage, None]:
        async with self._channel(manager_id) as channel:
            stub: managers_pb2_grpc.ManagersAsyncStub = managers_pb2_grpc.ManagersStub(channel)
            request = managers_pb2.ReadLogsRequest(task_ids=task_ids, options=wire_options(options))
            try:
                async for line in stub.ReadLogs(request):
                    yield line
            except grpc.aio.AioRpcError as error:
                raise from_grpc(error.code().value[0], error.details() or error.code().name) from None

    async def _ask_usage(self, node: Node) -> Mapping[TaskID, Usage]:
        if node.manager_status is None:
            return {}
        async with self._open(node.manager_status) as channel:
            stub: dispatcher_pb2_grpc.UsageBookAsyncStub = dispatcher_pb2_grpc.UsageBookStub(channel)
            found = await translated(stub.ReadUsage(dispatcher_pb2.ReadUsageRequest()))
        return {TaskID(each.task_id): usage_of(each) for each in found.usage}

    async def _ask_data_keys(self, manager_id: NodeID) -> Sequence[bytes]:
        async with self._channel(manager_id) as channel:
            stub: managers_pb2_grpc.ManagersAsyncStub = managers_pb2_grpc.ManagersStub(channel)
            request = managers_pb2.DataKeysRequest()
            return (await translated(stub.DataKeys(request, timeout=ASK_S))).data_keys

    def _channel(self, manager_id: NodeID) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        """A connection to another manager. Raises: Unavailable when it is none any more."""
        node = self._store.view.get(Node, manager_id)
        if node is None or node.manager_status is None:
            raise Unavailable(f"node {manager_id} is not a manager any more")
        return self._open(node.manager_status)

    def _open(self, manager: ManagerStatus) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        """A connection to where another manager serves nodes."""
        return open_channel(
            f"{manager.addr.rpartition(':')[0]}:{self._listen.cluster_port}", self._identity()
        )

    def _planners(self) -> tuple[Planner, ...]:
        return (
            whole("allocator", (Task, Service, Network, Node, Cluster), plan_allocation, concerns_allocation),
            Planner(
                name="orchestrator",
                kinds=(Service, Task, Node, Secret, Config),
                all_keys=list_service_ids,
                keys_of=self._concerned_services,
                plan=lambda view, key, now: plan_service(view, ServiceID(key), now, self._new_id),
            ),
            scheduler_planner(random.Random()),  # noqa: S311 - breaks ties between nodes
            whole(
                "reaper", (Task, Service, Node, Cluster), lambda view, _: plan_reaper(view), concerns_reaper
            ),
            Planner(
                name="enforcer",
                kinds=(Node, Task),
                all_keys=lambda view: [node.id for node in view.list(Node)],
                keys_of=_concerned_nodes,
                plan=lambda view, key, _: plan_enforcement(view, NodeID(key)),
            ),
            whole("tunnel keys", (Network, Node, Cluster), plan_tunnel_keys),
            whole("root rotation", (Node, Cluster), lambda view, _: plan_rotation(view, self._new_id)),
        )

    def _concerned_services(self, key: ObjectKey, change: Change) -> frozenset[str]:
        """A service, a task's service, what depends on it, and after a node's change that matters all."""
        tasks = [t for t in (change.old, change.new) if isinstance(t, Task)]
        if key[0] is Service or tasks:
            own = frozenset(t.service_id for t in tasks) or frozenset({ServiceID(key[1])})
            return own.union(*(dependents_of(self._store.view, service_id) for service_id in own))
        if key[0] in (Secret, Config):
            return frozenset(service.id for service in users_of(self._store.view, key[1]))
        return frozenset(list_service_ids(self._store.view)) if _matters(change) else frozenset()

    def _is_member(self, node_id: NodeID) -> bool:
        return self._store.view.get(Node, node_id) is not None

    async def _serve_nodes(self, dispatcher: Dispatcher) -> None:
        services = (
            *dispatcher_pb2.DESCRIPTOR.services_by_name.values(),
            *managers_pb2.DESCRIPTOR.services_by_name.values(),
        )
        guard = Guard(services, self._identity, self._clock, self._is_member)
        server: grpc.aio.Server = guarded_server(guard)
        dispatcher_pb2_grpc.add_DispatcherServicer_to_server(dispatcher, server)
        dispatcher_pb2_grpc.add_LogBrokerServicer_to_server(self.logs, server)
        dispatcher_pb2_grpc.add_UsageBookServicer_to_server(self._usage, server)
        managers_pb2_grpc.add_NodeCAServicer_to_server(NodeCA(self._store, self._clock, self.keeper), server)
        dispatcher_pb2_grpc.add_ExecBrokerServicer_to_server(self.execs, server)
        relays = Relays(logs=self.logs, execs=self.execs)
        members = ManagerMembers(self._store, self._parts.members, self._parts.secrets, relays, self.keeper)
        managers_pb2_grpc.add_ManagersServicer_to_server(members, server)
        address = f"{self._listen.address}:{self._listen.cluster_port}"
        try:
            server.add_secure_port(address, server_credentials(self._identity))
        except RuntimeError:
            raise FailedPrecondition(f"cannot listen on {address}: is the port in use?") from None
        await server.start()
        self._serving.set()
        try:
            await guard.run()
        finally:
            await server.stop(STOP_GRACE_S)


def _matters(change: Change) -> bool:
    """Whether a node's change can concern services: its heartbeats and descriptions alone do not."""
    old, new = change.old, change.new
    if not isinstance(old, Node) or not isinstance(new, Node):
        return True
    return _facts(old) != _facts(new)


def _concerned_nodes(key: ObjectKey, change: Change) -> tuple[str, ...]:
    """A node whose facts have changed, and the one that a task has just been given to."""
    if key[0] is Node:
        return (key[1],) if _matters(change) else ()
    old, new = change.old, change.new
    is_placed = isinstance(new, Task) and new.node_id and not (isinstance(old, Task) and old.node_id)
    return (new.node_id,) if isinstance(new, Task) and is_placed else ()


def _facts(node: Node) -> tuple[object, ...]:
    return node.spec, node.status.state, node.status.addr, node.description
