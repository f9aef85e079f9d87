"""Certificates for nodes that the cluster knows: for one that renews, and a manager's own. Pure.

In: what is stored, a request or an identity, the time. Out: a certificate, or why there is none.
Whoever reads the store holds the root's key. So a manager whose certificate has ended, while no other could
renew it, needs nobody: it signs its own, if what a quorum has stored still calls it a manager.
Invariant: the role, names and life in a certificate are those of the records, never the asker's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509

from swarm.base.errors import FailedPrecondition, PermissionDenied
from swarm.manager.ca.root import Grant, node_id_for, read_csr, sign
from swarm.manager.ca.rotation import issuing, trusted_pem
from swarm.model.objects import Cluster, Node
from swarm.model.types import NodeRole
from swarm.model.view import ClusterView
from swarm.proto.identity import Identity, make_csr


@dataclass(frozen=True, slots=True)
class Issued:
    certificate_pem: bytes
    root_pem: bytes
    """Every root that its holder is to trust."""


def is_manager(node: Node) -> bool:
    """Wanted as a manager, or still one until it has been taken out of the store."""
    return node.spec.role is NodeRole.MANAGER or node.manager_status is not None


def is_being_demoted(node: Node) -> bool:
    """Demoted, and about to be taken out of the store."""
    return node.spec.role is NodeRole.WORKER and node.manager_status is not None


def certified_role(node: Node) -> NodeRole:
    """What its certificate is to say."""
    return NodeRole.MANAGER if is_manager(node) else NodeRole.WORKER


def issue(cluster: Cluster, node: Node, csr_pem: bytes, now: datetime) -> Issued:
    """For the key that the node joined with. Raises: InvalidArgument, PermissionDenied."""
    key = read_csr(csr_pem)
    if node_id_for(key, cluster.id) != node.id:
        raise PermissionDenied("a node renews its certificate with the key it joined with")
    role = certified_role(node)
    life = cluster.spec.node_cert_expiry
    grant = Grant(node_id=node.id, role=role, cluster_id=cluster.id, life=life)
    return Issued(sign(issuing(cluster.root_ca, role), key, grant, now), trusted_pem(cluster.root_ca))


def counts(identity: Identity, now: datetime) -> bool:
    """Whether others take the certificate now; one from a clock that ran ahead has not begun yet."""
    return identity.subject.not_before <= now < identity.subject.not_after


def certify_own(view: ClusterView, identity: Identity, now: datetime) -> Identity:
    """A manager's own next certificate. `view` must be what a quorum holds.

    Raises: PermissionDenied for a node that is no manager any more; FailedPrecondition when the root does
    not count now.
    """
    node = view.get(Node, identity.subject.node_id)
    clusters = view.list(Cluster)
    if node is None or not clusters or not is_manager(node):
        raise PermissionDenied(f"node {identity.subject.node_id} is not a manager of the swarm any more")
    cluster = clusters[0]
    root = x509.load_pem_x509_certificate(issuing(cluster.root_ca, NodeRole.MANAGER).ca_cert_pem)
    begin, end = root.not_valid_before_utc, root.not_valid_after_utc
    if not begin <= now < end:
        raise FailedPrecondition(
            f"the swarm's root certificate is valid from {begin:%Y-%m-%d %H:%M:%S} to "
            f"{end:%Y-%m-%d %H:%M:%S} UTC and this host's clock says {now:%Y-%m-%d %H:%M:%S}: set the clock "
            "if it is wrong"
        )
    issued = issue(cluster, node, make_csr(identity.key_pem), now)
    return replace(identity, cert_pem=issued.certificate_pem, root_pem=issued.root_pem)
