"""What the dispatcher says and what it takes from a report: the view in, messages and writes out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from swarm.base.errors import NotFound, PermissionDenied
from swarm.base.ids import ClusterID, NodeID
from swarm.manager.ca.certificates import certified_role
from swarm.manager.ca.rotation import issuing, trusted_pem
from swarm.manager.dispatcher.assignments import Difference, Item
from swarm.model.dataplane import NetworkEndpoint, NetworkService, OverlayNetwork, PublishedPort, TunnelPeer
from swarm.model.defaults import CLUSTER_PORT
from swarm.model.objects import Cluster, ManagerStatus, Node, NodeStatus, Payload, Task, TaskStatus
from swarm.model.plan import Op, Update
from swarm.model.task_state import Owner, can_transition
from swarm.model.types import Encryption, Meta, NodeDescription
from swarm.model.view import ClusterView
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb

NO_CLUSTER = ClusterID("")
PART_BYTES = 8 << 20
"""Of one message: gRPC refuses those of more than 64 MiB."""


def find_cluster(view: ClusterView) -> Cluster:
    """The cluster's record; an empty one before it is there."""
    clusters = view.list(Cluster)
    return clusters[0] if clusters else Cluster(id=NO_CLUSTER)


def welcome(view: ClusterView, me: NodeID, node_id: NodeID, session_id: str) -> pb.SessionMessage:
    """What a node is told when it opens a session, and when any of it changes. Raises: NotFound."""
    node = view.get(Node, node_id)
    if node is None:
        raise NotFound("node", node_id)
    manager, cluster = view.get(Node, me), find_cluster(view)
    own = _cluster_address(manager.manager_status) if manager and manager.manager_status else ""
    managers = [_cluster_address(n.manager_status) for n in view.list(Node) if n.manager_status is not None]
    managers.sort(key=lambda address: address != own)
    message = pb.SessionMessage(
        session_id=session_id,
        node=codec.encode(replace(node, meta=Meta(), status=NodeStatus(), description=NodeDescription())),
        managers=managers,
        generation=cluster.generation,
    )
    message.heartbeat_period.FromTimedelta(cluster.spec.heartbeat_period)
    root_ca = cluster.root_ca
    if root_ca.ca_cert_pem:
        message.certificate.trust_pem = trusted_pem(root_ca)
        message.certificate.issuer_pem = issuing(root_ca, certified_role(node)).ca_cert_pem
        message.certificate.life.FromTimedelta(cluster.spec.node_cert_expiry)
    return message


def accept(view: ClusterView, node_id: NodeID, reports: dict[str, TaskStatus]) -> tuple[Op, ...]:
    """The reports that count, as writes. Raises: PermissionDenied for another node's task."""
    ops: list[Op] = []
    for task_id, status in reports.items():
        task = view.get(Task, task_id)
        if task is None:
            continue
        if task.node_id != node_id:
            raise PermissionDenied("cannot update a task not assigned this node")
        if status == task.status:
            continue
        if status.state == task.status.state or can_transition(Owner.AGENT, task.status.state, status.state):
            ops.append(Update(object=replace(task, status=status)))
    return tuple(ops)


def _cluster_address(status: ManagerStatus) -> str:
    """Where a manager serves nodes, from where it serves joins."""
    return f"{status.addr.rpartition(':')[0]}:{CLUSTER_PORT}"


def assignments_messages(change: Difference, sequence: int, epoch: int) -> Iterator[pb.AssignmentsMessage]:
    """One step of a node's assignments, in as many messages as its size asks for."""
    parts = tuple(_in_parts([_assignment(key, item) for key, item in change.updates]))
    for number, updates in enumerate(parts, start=1):
        is_last = number == len(parts)
        yield pb.AssignmentsMessage(
            complete=sequence == 0,
            applies_to=sequence,
            results_in=sequence + 1,
            epoch=epoch,
            updates=updates,
            removals=change.removals if is_last else (),
            is_partial=not is_last,
        )


def _in_parts(updates: list[pb.Assignment]) -> Iterator[list[pb.Assignment]]:
    """At least one part, each as large as `PART_BYTES` lets it be."""
    part: list[pb.Assignment] = []
    size = 0
    for update in updates:
        weight = update.ByteSize()
        if part and size + weight > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(update)
        size += weight
    yield part


def _assignment(key: str, item: Item) -> pb.Assignment:
    message = codec.encode(item)
    match item:
        case Task():
            return pb.Assignment(key=key, task=message)
        case OverlayNetwork():
            return pb.Assignment(key=key, network=message)
        case NetworkEndpoint():
            return pb.Assignment(key=key, endpoint=message)
        case PublishedPort():
            return pb.Assignment(key=key, port=message)
        case NetworkService():
            return pb.Assignment(key=key, service=message)
        case Payload():
            return pb.Assignment(key=key, payload=message)
        case TunnelPeer():
            return pb.Assignment(key=key, peer=message)
        case Encryption():
            return pb.Assignment(key=key, encryption=message)
