"""What writes to the store mean to people: a write in, at most one event out per object.

In: writes in the order of the store's revisions. Out: events of services, tasks, nodes, networks, secrets,
configs and the cluster. Invariant: the same write gives the same event, at the same position, on every
manager; times come from the written object, and only of what is removed from the reader's clock.
Attributes have Docker's names where it has them (`state.old`, `updatestate.new`, `replicas.old`).
Source: moby daemon/events.go (logServiceEvent, logNodeEvent).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from swarm.model.events import Event, Position
from swarm.model.objects import (
    Cluster,
    Config,
    Network,
    Node,
    Payload,
    Secret,
    Service,
    StoredObject,
    Task,
)
from swarm.model.task_state import TaskState
from swarm.model.types import NodeState
from swarm.model.view import KIND_NAMES, ClusterView, name_of
from swarm.store.changes import LeaderWritten, Written

Attributes = dict[str, str]


def events_of(write: Written | LeaderWritten, view: ClusterView, now: datetime) -> tuple[Event, ...]:
    """The events that a write makes; none for one that changes nothing people ask for."""
    if isinstance(write, LeaderWritten):
        return tuple(_leader_event(write, node, view, now) for node in sorted({write.old, write.new} - {""}))
    old, new = write.change.old, write.change.new
    item = new or old
    if item is None or isinstance(item, Payload):
        return ()
    action = "remove" if new is None else "create" if old is None else "update"
    if isinstance(item, Network) and item.is_removed:
        if new is None:
            return ()  # its user has removed it before
        action = "remove"
    changed = _differences(old, new) if old is not None and new is not None else {}
    if changed is None:
        return ()
    kind = "cluster" if isinstance(item, Cluster) else KIND_NAMES[type(item)]
    return (
        Event(
            position=Position(write.revision, kind, item.id),
            time=(_written_at(new) if new is not None else None) or now,
            type=kind,
            action=action,
            id=item.id,
            attributes=_attributes(item, view) | changed,
        ),
    )


def _leader_event(write: LeaderWritten, node_id: str, view: ClusterView, now: datetime) -> Event:
    leads = node_id == write.new
    node = next((n for n in view.list(Node) if n.id == node_id), None)
    return Event(
        position=Position(write.revision, "node", node_id),
        time=now,
        type="node",
        action="update",
        id=node_id,
        attributes=(_attributes(node, view) if node else {})
        | {"leader.old": str(not leads).lower(), "leader.new": str(leads).lower()},
    )


def _written_at(item: StoredObject) -> datetime | None:
    return item.meta.updated_at or item.meta.created_at


def _attributes(item: StoredObject, view: ClusterView) -> Attributes:
    if isinstance(item, Network):
        return {"name": item.spec.name, "type": item.spec.driver}
    if not isinstance(item, Task):
        return {"name": name_of(item)}
    node = view.get(Node, item.node_id) if item.node_id else None
    found = {"name": item.name, "service.id": item.service_id, "service.name": item.service_name}
    if item.slot:
        found["slot"] = str(item.slot)
    if item.node_id:
        found["node.id"] = item.node_id
        found["node.name"] = node.description.hostname if node else ""
    if item.status.err:
        found["error"] = item.status.err
    if item.status.state > TaskState.RUNNING and item.status.container is not None:
        found["exitcode"] = str(item.status.container.exit_code)
    return found


def _differences(old: StoredObject, new: StoredObject) -> Attributes | None:
    """`x.old` and `x.new` of what changed; None when nobody would ask."""
    match old, new:
        case Service(), Service():
            return _of_services(old, new)
        case Task(), Task():
            return _of_tasks(old, new)
        case Node(), Node():
            return _of_nodes(old, new)
        case Network(), Network():
            return {} if old.spec != new.spec or (new.is_removed and not old.is_removed) else None
        case Secret(), Secret():
            return {} if replace(old, meta=new.meta) != new else None
        case Config(), Config():
            return {} if replace(old, meta=new.meta) != new else None
        case Cluster(), Cluster():
            return _of_clusters(old, new)
        case _:
            return None


def _of_services(old: Service, new: Service) -> Attributes | None:
    found = _changed(
        ("image", _image(old), _image(new)),
        ("replicas", _replicas(old), _replicas(new)),
        ("updatestate", _update_state(old), _update_state(new)),
        ("iteration", _iteration(old), _iteration(new)),
    )
    if new.update_status is not None and old.update_status != new.update_status:
        found |= {"updatestate.message": new.update_status.message} if new.update_status.message else {}
    if new.scaling is not None and old.scaling != new.scaling:
        found["scaling.message"] = new.scaling.message
    is_news = (
        found or old.spec != new.spec or old.endpoint != new.endpoint or old.spec_version != new.spec_version
    )
    return found if is_news else None


def _image(service: Service) -> str:
    return service.spec.task_template.container_spec.image


def _update_state(service: Service) -> str:
    return service.update_status.state if service.update_status is not None else ""


def _iteration(service: Service) -> str:
    return str(service.job_status.job_iteration.index) if service.job_status is not None else ""


def _replicas(service: Service) -> str:
    mode = service.spec.mode.replicated
    return str(mode.replicas) if mode is not None else ""


def _of_tasks(old: Task, new: Task) -> Attributes | None:
    found = _changed(
        ("state", old.status.state.word, new.status.state.word),
        ("desiredstate", old.desired_state.word, new.desired_state.word),
        ("node", old.node_id, new.node_id),
    )
    return found if found or old.status.err != new.status.err else None


def _of_nodes(old: Node, new: Node) -> Attributes | None:
    found = _changed(
        ("state", old.status.state, new.status.state),
        ("availability", old.spec.availability, new.spec.availability),
        ("role", _role(old), _role(new)),
        ("reachability", _reachability(old), _reachability(new)),
    )
    return found if found or old.spec != new.spec or old.description != new.description else None


def _role(node: Node) -> str:
    """What it is, not what it is asked to become."""
    return "manager" if node.manager_status is not None else "worker"


def _reachability(node: Node) -> str:
    if node.manager_status is None:
        return ""
    return "unreachable" if node.status.state is NodeState.DOWN else "reachable"


def _of_clusters(old: Cluster, new: Cluster) -> Attributes | None:
    found = _changed(
        ("rootrotation", _rotation(old), _rotation(new)),
        ("autolock", _is_locked(old), _is_locked(new)),
        ("generation", str(old.generation), str(new.generation)),
    )
    if old.root_ca.join_tokens != new.root_ca.join_tokens:
        found["jointokens"] = "rotated"
    return found if found or old.spec != new.spec else None


def _rotation(cluster: Cluster) -> str:
    return "running" if cluster.root_ca.rotation is not None else "none"


def _is_locked(cluster: Cluster) -> str:
    return str(cluster.spec.auto_lock_managers).lower()


def _changed(*fields: tuple[str, str, str]) -> Attributes:
    found: Attributes = {}
    for name, old, new in _differing(fields):
        found |= {f"{name}.old": str(old)} if old else {}
        found |= {f"{name}.new": str(new)} if new else {}
    return found


def _differing(fields: Iterable[tuple[str, str, str]]) -> Iterable[tuple[str, str, str]]:
    return (field for field in fields if field[1] != field[2])
