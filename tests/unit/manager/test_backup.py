"""A backup's content, and what a cluster restored from it starts with."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from swarm.api.backend import InitRequest
from swarm.base.errors import InvalidArgument
from swarm.base.ids import NodeID, ServiceID, new_id
from swarm.manager.backup import certify_restorer, plan_restore, read_backup, write_backup
from swarm.manager.control.cluster import with_key_known
from swarm.model.objects import Cluster, Network, Node, NodeStatus, Service
from swarm.model.plan import Create, Update
from swarm.model.specs import ClusterSpec, NodeSpec, ServiceSpec
from swarm.model.types import Meta, NodeRole, NodeState, Version
from swarm.model.view import Objects
from swarm.node.founding import found_cluster

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = datetime(2026, 1, 3, tzinfo=UTC)


def objects():
    request = InitRequest(spec=ClusterSpec(auto_lock_managers=True))
    foundation = found_cluster(request, "192.0.2.1:2377", NOW, new_id)
    stored = [_locked(op.object) for op in foundation.seed.ops]
    stored.append(Service(id=ServiceID("s1"), spec=ServiceSpec(name="web")))
    for name, state in (("w1", NodeState.READY), ("w2", NodeState.DOWN)):
        status = NodeStatus(state=state, manager_id=foundation.identity.subject.node_id)
        stored.append(Node(id=NodeID(name), spec=NodeSpec(labels={"zone": "a"}), status=status))
    meta = Meta(version=Version(index=7), created_at=NOW, updated_at=NOW)
    return [replace(item, meta=meta) for item in stored]


def _locked(item):
    """The cluster as it is once somebody has read its unlock key."""
    return with_key_known(item, item.next_unlock_key) if isinstance(item, Cluster) else item


def taken():
    view = Objects()
    stored = objects()
    for item in stored:
        view.put(item)
    return stored, write_backup(view, NOW)


def test_a_backup_holds_every_object_as_it_is():
    stored, content = taken()
    backup = read_backup(content)
    assert sorted(backup.objects, key=lambda o: o.id) == sorted(stored, key=lambda o: o.id)
    assert backup.taken_at == NOW.isoformat()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found | {"format": 2},
        lambda found: found | {"objects": []},
        lambda found: found | {"objects": found["objects"] * 2},
        lambda found: found | {"objects": [["/swarm/objects/plugins/x", ""], *found["objects"]]},
        lambda found: found | {"objects": [["/swarm/objects/nodes/x", "?"]]},
        lambda found: [],
    ],
)
def test_what_cannot_be_restored_whole_is_refused(change):
    _, content = taken()
    with pytest.raises(InvalidArgument):
        read_backup(json.dumps(change(json.loads(content))).encode())


def test_a_restored_cluster_is_the_same_one_in_a_new_generation():
    stored, content = taken()
    backup = read_backup(content)
    me = certify_restorer(backup, LATER)
    ops = plan_restore(backup, me, "192.0.2.9:2377", LATER)
    written = {op.object.id: op.object for op in ops}
    before = {item.id: item for item in stored}
    old = next(item for item in stored if isinstance(item, Cluster))
    cluster = written[old.id]
    assert cluster == replace(old, generation=old.generation + 1, meta=cluster.meta)
    assert cluster.unlock_key == old.unlock_key != ""
    assert me.subject.cluster_id == old.id
    for item in stored:
        assert written[item.id].meta.created_at == item.meta.created_at
        assert written[item.id].meta.version == Version()
        if isinstance(item, (Service, Network)):
            assert written[item.id] == replace(item, meta=written[item.id].meta)
    assert set(written) == set(before) | {me.subject.node_id}
    assert [type(op) for op in ops] == [*[Update] * len(stored), Create]


def test_a_restored_cluster_has_one_manager_and_waits_for_the_nodes_that_were_up():
    _, content = taken()
    backup = read_backup(content)
    me = certify_restorer(backup, LATER)
    nodes = {
        op.object.id: op.object
        for op in plan_restore(backup, me, "192.0.2.9:2377", LATER)
        if isinstance(op.object, Node)
    }
    founder = nodes.pop(me.subject.node_id)
    assert (founder.spec.role, founder.manager_status.addr) == (NodeRole.MANAGER, "192.0.2.9:2377")
    for node in nodes.values():
        assert (node.spec.role, node.manager_status) == (NodeRole.WORKER, None)
    assert (nodes["w1"].status.state, nodes["w1"].status.manager_id) == (NodeState.UNKNOWN, founder.id)
    assert nodes["w1"].spec.labels == {"zone": "a"}
    assert nodes["w2"].status.state is NodeState.DOWN
