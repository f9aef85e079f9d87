"""What a backup holds, and what a cluster made from one starts with. Pure.

In: the view, or a backup's content. Out: the content, or the operations that write it. A backup is a logical
export: every object of one revision, with the CA, the join tokens and the unlock key in the cluster's own
record, but neither the data key nor etcd's CA nor any node's key. A restored cluster has those anew, so a
former manager that comes back cannot write into it. Its generation is the next one: agents that have heard
of it no longer listen to managers of the former.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from swarm.base.errors import InvalidArgument
from swarm.manager.ca.root import Grant, node_id_for, read_csr, sign
from swarm.model.objects import Cluster, ManagerStatus, Node, StoredObject
from swarm.model.plan import Create, Op, Update
from swarm.model.specs import NodeSpec
from swarm.model.types import NodeRole, NodeState, Version
from swarm.model.view import ClusterView
from swarm.proto import codec
from swarm.proto.identity import Identity, make_csr, new_key
from swarm.store import keys

FORMAT = 1
RESTORED = "restored from a backup"
RESTORED_GRACE_S = 20.0
"""More than the usual silence before a node counts as down and its tasks are replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    taken_at: str
    objects: tuple[StoredObject, ...] = field(repr=False)

    @property
    def revision(self) -> int:
        """The highest version of what it holds."""
        return max(item.meta.version.index for item in self.objects)

    @property
    def cluster(self) -> Cluster:
        """Raises: InvalidArgument when it holds none, or several."""
        found = [item for item in self.objects if isinstance(item, Cluster)]
        if len(found) != 1:
            raise InvalidArgument("the backup does not hold a swarm's state")
        return found[0]


def write_backup(view: ClusterView, now: datetime) -> bytes:
    """All that is stored, as of now."""
    kinds: tuple[Any, ...] = tuple(keys.KINDS.values())
    stored = [
        [keys.object_key(kind, item.id), base64.b64encode(codec.dumps(item)).decode()]
        for kind in kinds
        for item in view.list(kind)
    ]
    return json.dumps({"format": FORMAT, "taken_at": now.isoformat(), "objects": stored}).encode()


def read_backup(content: bytes) -> Backup:
    """Raises: InvalidArgument when this version cannot read all of it."""
    try:
        found = json.loads(content)
        if found["format"] != FORMAT:
            raise InvalidArgument("the backup was made by a later version: restore it with that")
        objects = tuple(_object(key, encoded) for key, encoded in found["objects"])
        backup = Backup(taken_at=str(found["taken_at"]), objects=objects)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"the backup cannot be read: {error}") from error
    return replace(backup, objects=(backup.cluster, *(o for o in objects if not isinstance(o, Cluster))))


def _object(key: str, encoded: str) -> StoredObject:
    place = keys.parse_object_key(key)
    if place is None:
        raise InvalidArgument(f"the backup holds {key}, which this version does not know: use a later one")
    item: StoredObject = codec.loads(place[0], base64.b64decode(encoded, validate=True))
    return item


def certify_restorer(backup: Backup, now: datetime) -> Identity:
    """A new node, a manager, under the cluster's own CA."""
    cluster, key_pem = backup.cluster, new_key()
    key = read_csr(make_csr(key_pem))
    grant = Grant(
        node_id=node_id_for(key, cluster.id),
        role=NodeRole.MANAGER,
        cluster_id=cluster.id,
        life=cluster.spec.node_cert_expiry,
    )
    root = cluster.root_ca
    return Identity(key_pem=key_pem, cert_pem=sign(root, key, grant, now), root_pem=root.ca_cert_pem)


def plan_restore(backup: Backup, me: Identity, join_address: str, now: datetime) -> tuple[Op, ...]:
    """Everything of the backup, and this node as the only manager; the other nodes have to turn up.

    Objects keep their creation times, so they are written as updates of what does not exist.
    """
    node_id = me.subject.node_id
    founder = Node(
        id=node_id,
        spec=NodeSpec(role=NodeRole.MANAGER),
        manager_status=ManagerStatus(addr=join_address),
    )

    def restored(item: StoredObject) -> StoredObject:
        fresh: StoredObject = replace(item, meta=replace(item.meta, version=Version()))
        if isinstance(fresh, Cluster):
            return replace(fresh, generation=fresh.generation + 1)
        return _awaited(fresh, founder, now) if isinstance(fresh, Node) else fresh

    return (*(Update(object=restored(item)) for item in backup.objects), Create(object=founder))


def _awaited(node: Node, founder: Node, now: datetime) -> Node:
    """A node of the former cluster: down once it has not come to the new manager within the usual time."""
    status = node.status
    if status.state is not NodeState.DOWN:
        status = replace(
            status,
            state=NodeState.UNKNOWN,
            message=RESTORED,
            manager_id=founder.id,
            changed_at=now,
        )
    spec = replace(node.spec, role=NodeRole.WORKER)
    return replace(node, spec=spec, status=status, manager_status=None)
