"""One manager: the servers that nodes talk to and, while it leads, the loops that decide."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio
from aiohttp import web

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition
from swarm.base.ids import IdSource, NodeID, ServiceID
from swarm.base.log import get_logger
from swarm.manager.allocator.allocate import plan_allocation
from swarm.manager.ca.join_server import JoinServer, tls_context
from swarm.manager.control.control import Control
from swarm.manager.dispatcher.server import Dispatcher
from swarm.manager.logbroker import LogBroker
from swarm.manager.loop import PlanLoop, Planner, whole
from swarm.manager.orchestrator.reaper import plan_reaper
from swarm.manager.orchestrator.service import list_service_ids, plan_service
from swarm.manager.scheduling import scheduler_planner
from swarm.model.objects import Cluster, Network, Node, Service, Task
from swarm.model.view import ClusterView
from swarm.proto.gen import dispatcher_pb2, dispatcher_pb2_grpc
from swarm.proto.identity import Identity
from swarm.proto.rpc import make_server, server_credentials
from swarm.store import keys
from swarm.store.changes import Change, ObjectKey
from swarm.store.election import Election
from swarm.store.store import Store

STOP_GRACE_S = 0.5

log = get_logger("manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where a manager serves: `address` may be 0.0.0.0."""

    address: str
    join_port: int
    cluster_port: int


class Manager:
    def __init__(
        self, store: Store, clock: Clock, new_id: IdSource, identity: Callable[[], Identity], listen: Listen
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._identity = identity
        self._listen = listen
        self.control = Control(store, clock, new_id)
        self.logs = LogBroker(store, new_id)
        self._election = Election(store, clock, identity().subject.node_id, self._lead)
        self._serving = asyncio.Event()

    @property
    def view(self) -> ClusterView:
        return self._store.view

    @property
    def leader_id(self) -> str:
        """The node that leads, as far as this manager knows."""
        leader = self._store.raw(keys.LEADER)
        return leader.value.decode() if leader else ""

    async def serving(self) -> None:
        """Wait until nodes can connect."""
        await self._serving.wait()

    async def run(self) -> None:
        """Until cancelled. The store's mirror must be running already."""
        await self._store.ready()
        async with asyncio.TaskGroup() as group:
            dispatcher = Dispatcher(self._store, self._clock, self._new_id)
            group.create_task(self._election.run())
            group.create_task(dispatcher.run())
            group.create_task(self._serve_joins())
            group.create_task(self._serve_nodes(dispatcher))

    async def _lead(self, epoch: int) -> None:
        log.info("leader.starts", epoch=epoch)
        async with asyncio.TaskGroup() as group:
            for planner in self._planners():
                group.create_task(PlanLoop(planner, self._store, self._clock, epoch).run(), name=planner.name)

    def _planners(self) -> tuple[Planner, ...]:
        return (
            whole("allocator", (Task, Network, Node, Cluster), plan_allocation),
            Planner(
                name="orchestrator",
                kinds=(Service, Task, Node),
                all_keys=list_service_ids,
                keys_of=self._concerned_services,
                plan=lambda view, key, now: plan_service(view, ServiceID(key), now, self._new_id),
            ),
            scheduler_planner(random.Random()),  # noqa: S311 - breaks ties between nodes
            whole("reaper", (Task, Service, Node, Cluster), lambda view, _: plan_reaper(view)),
        )

    def _concerned_services(self, key: ObjectKey, change: Change) -> frozenset[str]:
        """A service, a task's service, and after a change of a node that matters, all of them."""
        if key[0] is Service:
            return frozenset({key[1]})
        tasks = [t for t in (change.old, change.new) if isinstance(t, Task)]
        if tasks:
            return frozenset(t.service_id for t in tasks)
        return frozenset(list_service_ids(self._store.view)) if _matters(change) else frozenset()

    async def _serve_joins(self) -> None:
        identity = self._identity()
        runner = web.AppRunner(JoinServer(self._store, self._clock).application(), access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(
                runner, self._listen.address, self._listen.join_port, ssl_context=tls_context(identity)
            )
            await site.start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def _is_member(self, node_id: NodeID) -> bool:
        return self._store.view.get(Node, node_id) is not None

    async def _serve_nodes(self, dispatcher: Dispatcher) -> None:
        identity = self._identity()
        services = tuple(dispatcher_pb2.DESCRIPTOR.services_by_name.values())
        server: grpc.aio.Server = make_server(identity, services, self._clock, self._is_member)
        dispatcher_pb2_grpc.add_DispatcherServicer_to_server(dispatcher, server)
        dispatcher_pb2_grpc.add_LogBrokerServicer_to_server(self.logs, server)
        address = f"{self._listen.address}:{self._listen.cluster_port}"
        try:
            server.add_secure_port(address, server_credentials(identity))
        except RuntimeError:
            raise FailedPrecondition(f"cannot listen on {address}: is the port in use?") from None
        await server.start()
        self._serving.set()
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(STOP_GRACE_S)


def _matters(change: Change) -> bool:
    """Whether a node's change can concern services: its heartbeats and descriptions alone do not."""
    old, new = change.old, change.new
    if not isinstance(old, Node) or not isinstance(new, Node):
        return True
    return _facts(old) != _facts(new)


def _facts(node: Node) -> tuple[object, ...]:
    return node.spec, node.status.state, node.status.addr, node.description
