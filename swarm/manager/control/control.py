"""Changes that users make: each method validates against what is stored and commits one transaction.

In: decoded specs and the version that the caller decided on. Out: the written object, or an error that a user
can read. Reads need no method: they go to `view`.

Invariant: nothing is written that `swarm.model.validation` refuses, and nothing on top of a version that the
caller did not see. Source: SwarmKit manager/controlapi.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from swarm.base.clock import Clock
from swarm.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    OutOfSequence,
    Unavailable,
    Unsupported,
)
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource, NodeID, ServiceID
from swarm.manager.allocator.ports import allocate_ports
from swarm.manager.ca.tokens import add_token, remove_token
from swarm.manager.control.cluster import change_cluster
from swarm.manager.control.names import generate_name
from swarm.manager.control.store import Store
from swarm.model.defaults import STOP_GRACE_PERIOD
from swarm.model.objects import Cluster, LimitedToken, Node, Service, Task, TaskStatus
from swarm.model.plan import Create, Delete, Op, Update
from swarm.model.rotate import NOTHING, Rotate, TokenRequest
from swarm.model.specs import ClusterSpec, NodeSpec, ServiceSpec, TaskSpec
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import (
    EndpointSpec,
    NodeRole,
    NodeState,
    Placement,
    ResourceRequirements,
    RestartPolicy,
    Version,
)
from swarm.model.validation import validate_node_spec, validate_service_spec
from swarm.model.view import ClusterView, find
from swarm.scheduler.constraint import parse_constraints

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

    @property
    def view(self) -> ClusterView:
        return self._store.view

    async def sync(self) -> None:
        """Make reads from `view` linearisable. Raises: Unavailable without a quorum."""
        await self._store.sync()

    def is_reachable(self, node_id: NodeID) -> bool:
        """Whether that manager has been heard of lately."""
        return self._is_reachable(node_id)

    async def create_service(self, spec: ServiceSpec) -> Service:
        """Store a new service; a spec without a name is given one.

        Raises:
            InvalidArgument: the spec breaks a rule, or a port is taken.
            AlreadyExists: the name is taken.
        """
        if not spec.name:
            spec = replace(spec, name=self._free_name())
        _validate(spec)
        if self.view.named(Service, spec.name):
            raise AlreadyExists(f"name conflicts with an existing object: service {spec.name} already exists")
        service_id = ServiceID(self._new_id())
        service = Service(
            id=service_id,
            spec=spec,
            spec_version=Version(index=1),
            endpoint=allocate_ports(self.view, spec, None),
        )
        await self._store.commit([Create(object=service)])
        return self.view.get(Service, service_id) or service

    async def update_service(self, reference: str, version: int, spec: ServiceSpec) -> None:
        """Change a service's replicas or labels: what this version can change in place.

        Raises:
            Unsupported: anything else differs.
            OutOfSequence: `version` is not the stored one.
        """
        service = self._at_version(Service, reference, version)
        _validate(spec)
        _refuse_other_changes(service.spec, spec)
        wanted = replace(service.spec, labels=spec.labels, mode=spec.mode)
        if wanted != service.spec:
            changed = replace(service, spec=wanted, previous_spec=service.spec)
            await self._store.commit([Update(object=changed)])

    async def remove_service(self, reference: str) -> None:
        """Delete the service; the orchestrator then takes its tasks down."""
        service = find(self.view, Service, reference)
        await self._store.commit([Delete(object=service)])

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
        node = find(self.view, Node, reference)
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
        cluster = self.cluster()
        root_ca = add_token(cluster.root_ca, request, self._new_id, self._clock.now())
        await self._store.commit([Update(object=replace(cluster, root_ca=root_ca))])
        return root_ca.limited_tokens[-1]

    async def remove_token(self, token_id: str) -> None:
        """Let nobody in any more with that limited token. Raises: NotFound."""
        cluster = self.cluster()
        root_ca = remove_token(cluster.root_ca, token_id)
        await self._store.commit([Update(object=replace(cluster, root_ca=root_ca))])

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
            if not is_dead(task.status.state)
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


def _validate(spec: ServiceSpec) -> None:
    validate_service_spec(spec)
    placement = spec.task_template.placement
    if placement is not None:
        parse_constraints(placement.constraints)


def _orphaned(task: Task, status: TaskStatus) -> Task:
    return replace(task, status=replace(status, container=task.status.container))


def _refuse_other_changes(old: ServiceSpec, new: ServiceSpec) -> None:
    """Replicas and labels may differ; a client may also spell out a default that was left open."""
    if new.name != old.name:
        raise Unsupported("renaming services is not supported")
    if (new.mode.global_ is None) != (old.mode.global_ is None):
        raise Unsupported("service mode change is not allowed")
    if _spelt_out(new.task_template) != _spelt_out(old.task_template):
        raise Unsupported(
            "changing a service's task template is not supported by this version: "
            "remove the service and create it anew"
        )
    if _spelt_out_endpoint(new.endpoint_spec) != _spelt_out_endpoint(old.endpoint_spec):
        raise Unsupported(
            "changing a service's published ports is not supported by this version: "
            "remove the service and create it anew"
        )


def _spelt_out_endpoint(endpoint: EndpointSpec | None) -> EndpointSpec:
    endpoint = endpoint or EndpointSpec()
    return replace(endpoint, mode=endpoint.mode or "vip")


def _spelt_out(template: TaskSpec) -> TaskSpec:
    container = template.container_spec
    grace = container.stop_grace_period
    return replace(
        template,
        container_spec=replace(container, stop_grace_period=STOP_GRACE_PERIOD if grace is None else grace),
        resources=template.resources or ResourceRequirements(),
        restart_policy=template.restart_policy or RestartPolicy(),
        placement=template.placement or Placement(),
    )
