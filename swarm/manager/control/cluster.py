"""What a user's change makes of the cluster's own object. Pure.

Invariant: secrets that are not to be replaced stay as they are, a root is replaced by a rotation only, and an
unlock key that nobody may have seen is never the only one.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from swarm.base.ids import IdSource
from swarm.manager.ca.root import create_root
from swarm.manager.ca.rotation import desired_root, read_authority, start_rotation
from swarm.model.objects import Cluster, JoinTokens, RootCA
from swarm.model.rotate import Rotate
from swarm.model.specs import ClusterSpec
from swarm.secrets.unlock import new_unlock_key


def change_cluster(
    cluster: Cluster, spec: ClusterSpec, rotate: Rotate, new_secret: IdSource, now: datetime
) -> Cluster:
    """Raises InvalidArgument for an authority that cannot be used."""
    old = cluster.root_ca.join_tokens
    tokens = JoinTokens(
        worker=new_secret() if rotate.worker_token else old.worker,
        manager=new_secret() if rotate.manager_token else old.manager,
    )
    root_ca = replace(_next_root(cluster, spec, rotate, now), join_tokens=tokens)
    return _with_lock(replace(cluster, spec=spec, root_ca=root_ca), rotate=rotate.unlock_key)


def with_key_known(cluster: Cluster, key: str) -> Cluster:
    """Somebody has the next unlock key, `key`: from now on it alone opens the locks."""
    if not key or key != cluster.next_unlock_key:
        return cluster
    return replace(cluster, unlock_key=key, next_unlock_key="")


def _next_root(cluster: Cluster, spec: ClusterSpec, rotate: Rotate, now: datetime) -> RootCA:
    root_ca = cluster.root_ca
    if rotate.authority is not None:
        cert_pem, key_pem = read_authority(rotate.authority.cert_pem, rotate.authority.key_pem, now)
        return root_ca if cert_pem == desired_root(root_ca) else start_rotation(root_ca, cert_pem, key_pem)
    if spec.force_rotate != cluster.spec.force_rotate:
        fresh = create_root(now, root_ca.join_tokens)
        return start_rotation(root_ca, fresh.ca_cert_pem, fresh.ca_key_pem)
    return root_ca


def _with_lock(cluster: Cluster, *, rotate: bool) -> Cluster:
    """No key without autolock; a fresh one is the next when it is turned on or rotated."""
    if not cluster.spec.auto_lock_managers:
        return replace(cluster, unlock_key="", next_unlock_key="")
    if rotate or not (cluster.unlock_key or cluster.next_unlock_key):
        return replace(cluster, next_unlock_key=new_unlock_key())
    return cluster
