"""Changes that users make: each method validates against what is stored and commits one transaction.

In: decoded specs and the version that the caller decided on. Out: the written object, or an error that a user
can read. Reads need no method: they go to `view`.

Invariant: nothing is written that `swarm.model.validation` refuses, and nothing on top of a version that the
caller did not see. Source: SwarmKit manager/controlapi.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from swarm.base.clock import Clock
from swarm.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    OutOfSequence,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource, NetworkID, NodeID, ServiceID
from swarm.manager.allocator.ports import allocate_ports
from swarm.manager.ca.tokens import add_token, remove_token
from swarm.manager.control.cluster import change_cluster
from swarm.manager.control.names import generate_name
from swarm.manager.control.networks import new_network, removed_network, resolve_networks
from swarm.manager.control.payload_versions import PayloadVersions
from swarm.manager.control.payloads import Payloads
from swarm.manager.control.services import (
    FROM_SPEC,
    changed_service,
    resumed,
    rolled_back_service,
    validate_service,
)
from swarm.manager.control.store import Store, insist
from swarm.manager.explain.service import explain
from swarm.manager.orchestrator.rebalance import all_moves
from swarm.manager.orchestrator.schedule import first_job_status
from swarm.model.exclusive import is_exclusive
from swarm.model.explanation import Explanation
from swarm.model.objects import Cluster, LimitedToken, Network, Node, RootCA, Service, Task, TaskStatus
from swarm.model.plan import Create, Delete, Op, Update
from swarm.model.rotate import NOTHING, Rotate, TokenRequest
from swarm.model.specs import ClusterSpec, NetworkSpec, NodeSpec, ServiceSpec
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import NodeRole, NodeState, Version
from swarm.model.validation import validate_node_spec
from swarm.model.view import ClusterView, find

DEMOTION_LOOKS = 40
DEMOTION_LOOK_S = 0.1
"""`node demote NODE && node rm NODE` is what a user is told to do: the first returns at once."""

Versioned = TypeVar("Versioned", Service, Node, Cluster)


class Control:
    def __init__(
        self, store: Store, clock: Clock, new_id: IdSource, is_reachable: Callable[[NodeID], bool]
    ) -> None:
        """`is_reachable` tells whether a manager serves."""
        self._is_reachable = is_reachable
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self.payloads = Payloads(store, new_id)
        self.payload_versions = PayloadVersions(store)

    @property
    def view(self) -> ClusterView:
        return self._store.view

    async def sync(self) -> None:
        """Make reads from `view` linearisable. Raises: Unavailable without a quorum."""
        await self._store.sync()

    def is_reachable(self, node_id: NodeID) -> bool:
        """Whether that manager has been heard of lately."""
        return self._is_reachable(node_id)

    def explain_service(self, reference: str) -> Explanation:
        """Why the service is not as it was asked for. Raises: NotFound, Ambiguous."""
        return explain(self.view, find(self.view, Service, reference), self._clock.now())

    async def create_service(self, spec: ServiceSpec) -> Service:
        """Store a new service; a spec without a name is given one.

        Raises:
            InvalidArgument: the spec breaks a rule, or a port is taken.
            AlreadyExists: the name is taken.
            NotFound: no such network.
        """
        if not spec.name:
            spec = replace(spec, name=self._free_name())
        spec = resolve_networks(self.view, spec)
        validate_service(self.view, spec)
        if self.view.named(Service, spec.name):
            raise AlreadyExists(f"name conflicts with an existing object: service {spec.name} already exists")
        service_id = ServiceID(self._new_id())
        service = Service(
            id=service_id,
            spec=spec,
            spec_version=Version(index=1),
            endpoint=allocate_ports(self.view, spec, None),
            job_status=first_job_status(spec, self._clock.now()),
        )
        await self._store.commit([Create(object=service)])
        return self.view.get(Service, service_id) or service

    async def update_service(
        self, reference: str, version: int, spec: ServiceSpec, auth_from: str = FROM_SPEC
    ) -> None:
        """Change anything but name and kind of mode; the orchestrator then replaces tasks as configured.

        The same spec again resumes a paused update. `auth_from` says whose credentials stay when `spec` has
        none: those of the current spec, or of the previous one.

        Raises:
            InvalidArgument: the spec breaks a rule, or a port is taken.
            Unsupported: another name or kind of mode.
            OutOfSequence: `version` is not the stored one.
        """
        service = self._at_version(Service, reference, version)
        await self._write(service, changed_service(self.view, service, spec, auth_from, self._clock.now()))

    async def rollback_service(self, reference: str, version: int) -> None:
        """Go back to the previous spec. Raises: FailedPrecondition, InvalidArgument, OutOfSequence."""
        service = self._at_version(Service, reference, version)
        await self._write(service, rolled_back_service(self.view, service, self._clock.now()))

    async def resume_service(self, reference: str, version: int) -> None:
        """Go on with a paused update or rollback. Raises: FailedPrecondition, OutOfSequence."""
        service = self._at_version(Service, reference, version)
        await self._write(service, resumed(service))

    async def rebalance_service(self, reference: str) -> int:
        """Move tasks until the nodes have the same number of them; returns how many.

        Raises FailedPrecondition for a service that cannot be evened out.
        """
        service = find(self.view, Service, reference)
        plan = all_moves(self.view, service, self._clock.now())
        return await self._store.apply(plan.ops)

    async def _write(self, service: Service, changed: Service) -> None:
        if changed is not service:
            await self._store.commit([Update(object=changed)])

    async def remove_service(self, reference: str) -> None:
        """Delete the service; the orchestrator then takes its tasks down."""

        async def remove() -> None:
            await self._store.commit([Delete(object=find(self.view, Service, reference))])

        await insist(self._store, remove)

    async def create_network(self, spec: NetworkSpec) -> Network:
        """Store a new network; the leader gives it what the spec leaves open.

        Raises: InvalidArgument, AlreadyExists, PermissionDenied, Unsupported.
        """
        network = new_network(self.view, spec, NetworkID(self._new_id()))
        await self._store.commit([Create(object=network)])
        return network

    async def remove_network(self, reference: str) -> None:
        """It is gone for users; tasks that are still stopping keep it until they are gone.

        Raises: NotFound, Ambiguous, FailedPrecondition while a service uses it, PermissionDenied.
        """

        async def remove() -> None:
            await self._store.commit([Update(object=removed_network(self.view, reference))])

        await insist(self._store, remove)

    async def update_node(self, reference: str, version: int, spec: NodeSpec) -> None:
        """Change availability, labels and role; the node then moves into the store, or out of it.

        Raises FailedPrecondition for a demotion that would leave no quorum.
        """
        node = self._at_version(Node, reference, version)
        validate_node_spec(spec)
        if node.spec.role is NodeRole.MANAGER and spec.role is NodeRole.WORKER:
            self._check_demotion(node)
        if spec != node.spec:
            await self._store.commit([Update(object=replace(node, spec=spec))])

    async def remove_node(self, reference: str, *, force: bool = False) -> None:
        """Forget a node that is down (or, by force, any worker); its tasks are orphaned.

        Raises:
            FailedPrecondition: it is a manager, or it is not down.
        """
        await insist(self._store, lambda: self._remove_node(reference, force=force))

    async def _remove_node(self, reference: str, *, force: bool) -> None:
        node = await self._demoted(reference)
        if node.spec.role is NodeRole.MANAGER or node.manager_status is not None:
            raise FailedPrecondition(
                f"node {node.id} is a cluster manager and is a member of the raft cluster. "
                "It must be demoted to worker before removal"
            )
        if not force and node.status.state is not NodeState.DOWN:
            raise FailedPrecondition(f"node {node.id} is not down and can't be removed")
        while orphans := self._orphan_ops(node.id):
            await self._store.apply(orphans)  # what lost a race is found again
        await self._store.commit([Delete(object=find(self.view, Node, node.id))])

    async def _demoted(self, reference: str) -> Node:
        """The node; the end of a demotion that is under way is waited for, but not for long."""
        for _ in range(DEMOTION_LOOKS):
            node = find(self.view, Node, reference)
            if node.spec.role is NodeRole.MANAGER or node.manager_status is None:
                break
            await asyncio.sleep(DEMOTION_LOOK_S)
        return find(self.view, Node, reference)

    async def update_cluster(self, version: int, spec: ClusterSpec, rotate: Rotate = NOTHING) -> None:
        """Change the cluster's settings, and replace what `rotate` names.

        Raises InvalidArgument for a root certificate that cannot be used.
        """
        cluster = self._at_version(Cluster, self.cluster().id, version)
        changed = change_cluster(cluster, spec, rotate, self._new_id, self._clock.now())
        if changed != cluster:
            failpoint("cluster.change.before")
            await self._store.commit([Update(object=changed)])
            failpoint("cluster.change.after")

    async def create_token(self, request: TokenRequest) -> LimitedToken:
        """Make a join token that ends by itself. Raises: InvalidArgument."""

        def add(root: RootCA) -> RootCA:
            return add_token(root, request, self._new_id, self._clock.now())

        return (await self._change_root(add)).limited_tokens[-1]

    async def remove_token(self, token_id: str) -> None:
        """Let nobody in any more with that limited token. Raises: NotFound."""
        await self._change_root(lambda root: remove_token(root, token_id))

    async def _change_root(self, change: Callable[[RootCA], RootCA]) -> RootCA:
        async def write() -> RootCA:
            cluster = self.cluster()
            changed = change(cluster.root_ca)
            await self._store.commit([Update(object=replace(cluster, root_ca=changed))])
            return changed

        return await insist(self._store, write)

    def cluster(self) -> Cluster:
        """The cluster's own object. Raises Unavailable while the store is not read yet."""
        found = self.view.list(Cluster)
        if not found:
            raise Unavailable("the swarm's state is being loaded: try again in a moment")
        return found[0]

    def _at_version(self, kind: type[Versioned], reference: str, version: int) -> Versioned:
        found = find(self.view, kind, reference)
        if found.meta.version.index != version:
            raise OutOfSequence
        return found

    def _free_name(self) -> str:
        while True:
            name = generate_name(self._new_id())
            if not self.view.named(Service, name):
                return name

    def _orphan_ops(self, node_id: NodeID) -> Sequence[Op]:
        now = self._clock.now()
        return [
            Update(
                object=_orphaned(
                    task, TaskStatus(timestamp=now, state=TaskState.ORPHANED, message="node removed")
                )
            )
            for task in self.view.tasks_on_node(node_id)
            if not is_dead(task.status.state) and not is_exclusive(task)  # fencing ends those, in its time
        ]

    def _check_demotion(self, node: Node) -> None:
        """Raises FailedPrecondition where the managers that stay could not decide anything."""
        managers = [n for n in self.view.list(Node) if n.spec.role is NodeRole.MANAGER]
        if managers == [node]:
            raise FailedPrecondition("attempting to demote the last manager of the swarm")
        staying = [n for n in managers if n.manager_status is not None and n.id != node.id]
        reachable = sum(self._is_reachable(n.id) for n in staying)
        if reachable < len(staying) // 2 + 1:
            raise FailedPrecondition(
                "can't remove member from the raft: this would result in a loss of quorum"
            )


def _orphaned(task: Task, status: TaskStatus) -> Task:
    return replace(task, status=replace(status, container=task.status.container))
