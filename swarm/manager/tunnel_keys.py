"""When hosts make new keys for encrypted networks, and when they go over to them. Pure.

In: the cluster, its networks, what nodes say of their keys. Out: the cluster's generation of keys. A rotation
has two steps: every node that is up makes a key of the next generation and tells it; some time later, when
all nodes have surely heard of all of them, the cluster goes over. What nodes do with it:
`swarm.overlay.encryption`.

Invariant: the cluster never goes over to a generation for which a node that is up, and can encrypt, has no
key, and keys are known for a while before they are used.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from swarm.model.networks import is_encrypted
from swarm.model.objects import Cluster, Network, Node
from swarm.model.plan import Plan, Update
from swarm.model.types import Encryption, NodeState
from swarm.model.view import ClusterView

ROTATE_EVERY = timedelta(hours=12)
HEARD_AFTER = timedelta(seconds=10)
"""A key that a node told so long ago is known to every node that has a session."""


def plan_tunnel_keys(view: ClusterView, now: datetime) -> Plan:
    clusters = view.list(Cluster)
    if not clusters or not any(is_encrypted(network.spec) for network in view.list(Network)):
        return Plan()
    cluster = clusters[0]
    terms = cluster.encryption
    begun = terms.changed_at or now
    if not terms.generation:
        return _change(cluster, Encryption(generation=1, changed_at=now))
    if not terms.is_preparing:
        if now < begun + ROTATE_EVERY:
            return Plan(wake_at=begun + ROTATE_EVERY)
        return _change(cluster, replace(terms, is_preparing=True, changed_at=now))
    heard_at = _heard_at(view, terms.generation + 1, begun)
    if heard_at is None or now < heard_at:
        return Plan(wake_at=heard_at)  # without one, the next word of a node brings us back
    return _change(cluster, Encryption(generation=terms.generation + 1, changed_at=now))


def _heard_at(view: ClusterView, generation: int, begun: datetime) -> datetime | None:
    """When all will know every key of `generation`; None while a node has yet to tell its own."""
    told_at = begun
    for node in view.list(Node):
        if node.status.state is not NodeState.READY or node.description.encryption_problem:
            continue
        if not any(key.generation == generation for key in node.description.tunnel_keys):
            return None
        told_at = max(told_at, node.meta.updated_at or begun)
    return told_at + HEARD_AFTER


def _change(cluster: Cluster, terms: Encryption) -> Plan:
    return Plan.of([Update(object=replace(cluster, encryption=terms))])
