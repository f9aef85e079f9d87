from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from swarm.base.ids import ClusterID, NetworkID, NodeID
from swarm.manager.dispatcher.assignments import shared_items
from swarm.manager.tunnel_keys import HEARD_AFTER, ROTATE_EVERY, plan_tunnel_keys
from swarm.model.dataplane import TunnelPeer
from swarm.model.objects import Cluster, Network, Node, NodeStatus
from swarm.model.plan import Update
from swarm.model.specs import NetworkSpec
from swarm.model.types import Encryption, Meta, NodeDescription, NodeState, TunnelKey
from swarm.model.view import Objects

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECRET = Network(id=NetworkID("n1"), spec=NetworkSpec(name="secret", options={"encrypted": ""}))


def view_of(*objects: Cluster | Network | Node) -> Objects:
    view = Objects()
    for each in objects:
        view.put(each)
    return view


def node(name: str, *generations: int, state: NodeState = NodeState.READY, problem: str = "") -> Node:
    keys = tuple(TunnelKey(generation=g, public_key=f"{name}{g}") for g in generations)
    description = NodeDescription(
        hostname=name, data_path_address=f"10.9.0.{ord(name)}", tunnel_keys=keys, encryption_problem=problem
    )
    return Node(
        id=NodeID(name), meta=Meta(updated_at=NOW), status=NodeStatus(state=state), description=description
    )


def plan(terms: Encryption, *nodes: Node, networks: tuple[Network, ...] = (SECRET,), now: datetime = NOW):
    cluster = Cluster(id=ClusterID("c"), encryption=terms)
    found = plan_tunnel_keys(view_of(cluster, *networks, *nodes), now)
    changed = [op.object.encryption for op in found.ops if isinstance(op, Update)]
    return (changed[0] if changed else None), found.wake_at


def test_there_are_no_keys_without_an_encrypted_network() -> None:
    plain = replace(SECRET, spec=NetworkSpec(name="plain"))
    assert plan(Encryption(), node("a"), networks=(plain,)) == (None, None)
    assert plan(Encryption(), node("a"))[0] == Encryption(generation=1, changed_at=NOW)


def test_new_keys_are_made_every_twelve_hours() -> None:
    terms = Encryption(generation=1, changed_at=NOW)
    assert plan(terms, node("a", 1)) == (None, NOW + ROTATE_EVERY)
    later = NOW + ROTATE_EVERY
    assert plan(terms, node("a", 1), now=later)[0] == Encryption(
        generation=1, is_preparing=True, changed_at=later
    )


def test_they_are_used_when_everybody_has_heard_of_them() -> None:
    terms = Encryption(generation=1, is_preparing=True, changed_at=NOW)
    heard = NOW + HEARD_AFTER
    next_terms = Encryption(generation=2, changed_at=heard)
    assert plan(terms, node("a", 1, 2), node("b", 1), now=heard) == (None, None)
    assert plan(terms, node("a", 1, 2), node("b", 1, 2)) == (None, heard)
    assert plan(terms, node("a", 1, 2), node("b", 1, 2), now=heard)[0] == next_terms
    absent = (node("b", 1, state=NodeState.DOWN), node("c", problem="no wg"))
    assert plan(terms, node("a", 1, 2), *absent, now=heard)[0] == next_terms


def test_nodes_are_told_of_the_generation_and_the_keys() -> None:
    cluster = Cluster(id=ClusterID("c"), encryption=Encryption(generation=1, changed_at=NOW))
    items = shared_items(view_of(cluster, node("a", 1), node("b")))
    assert items == {
        "encryption": cluster.encryption,
        "peer/a": TunnelPeer(host="10.9.0.97", keys=(TunnelKey(generation=1, public_key="a1"),)),
    }
