"""The way from one root certificate to another, while everything runs on. Pure.

In: what is stored of the authority, and what nodes say of their certificates. Out: which root issues,
which are trusted, and the next step. There are four: every node learns to trust the new root beside the old
one; the new one issues the workers' certificates; then the managers'; the old one goes, and the join tokens
with it. Nodes that are down do not hold up the second step: managers, whom alone a node must trust, keep the
old root's certificates until those are back, trust the new root, too, or have been removed.

Invariant: managers show a certificate only of a root that every node trusts, down or not. A cross-signed
certificate (SwarmKit's way, ca/reconciler.go) would save the first step, but not with a root that forbids
authorities below itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swarm.base.errors import InvalidArgument
from swarm.model.objects import Cluster, JoinTokens, Node, RootCA, RootRotation
from swarm.model.plan import Plan, Update
from swarm.model.types import NodeRole, NodeState, TLSInfo
from swarm.model.view import ClusterView
from swarm.proto.roots import join_pems, root_info

PEM_LIMIT_BYTES = 64 * 1024
SOON = timedelta(days=90)
"""As long as certificates of nodes live, unless the swarm has another life for them."""


def desired_root(root_ca: RootCA) -> bytes:
    """The root that the cluster has, or is to have when its rotation ends."""
    return root_ca.rotation.ca_cert_pem if root_ca.rotation else root_ca.ca_cert_pem


def issuing(root_ca: RootCA, role: NodeRole) -> RootCA:
    """With the key and certificate that sign for nodes of the role just now."""
    rotation = root_ca.rotation
    if rotation is None or not (rotation.is_trusted or (rotation.is_issuing and role is NodeRole.WORKER)):
        return root_ca
    return replace(root_ca, ca_key_pem=rotation.ca_key_pem, ca_cert_pem=rotation.ca_cert_pem)


def trusted_pem(root_ca: RootCA) -> bytes:
    """Every root that a node is to trust just now, the desired one first."""
    rotation = root_ca.rotation
    if rotation is None:
        return root_ca.ca_cert_pem
    return join_pems(rotation.ca_cert_pem, root_ca.ca_cert_pem, rotation.given_up_pem)


def start_rotation(root_ca: RootCA, cert_pem: bytes, key_pem: bytes) -> RootCA:
    """Set out for another root. One that is under way is given up, and what it has issued stays trusted."""
    under_way = root_ca.rotation
    given_up = join_pems(under_way.ca_cert_pem, under_way.given_up_pem) if under_way else b""
    return replace(
        root_ca, rotation=RootRotation(ca_cert_pem=cert_pem, ca_key_pem=key_pem, given_up_pem=given_up)
    )


def plan_rotation(view: ClusterView, new_secret: Callable[[], str]) -> Plan:
    """The next step of the cluster's rotation, once the nodes that it waits for have done the one before."""
    ops = []
    for cluster in view.list(Cluster):
        rotation = cluster.root_ca.rotation
        if rotation is None or list_behind(cluster, view.list(Node)):
            continue
        next_step = replace(rotation, is_issuing=True, is_trusted=rotation.is_issuing)
        root_ca = replace(cluster.root_ca, rotation=next_step)
        if rotation.is_trusted:
            tokens = JoinTokens(worker=new_secret(), manager=new_secret())
            root_ca = RootCA(
                ca_key_pem=rotation.ca_key_pem, ca_cert_pem=rotation.ca_cert_pem, join_tokens=tokens
            )
        ops.append(Update(object=replace(cluster, root_ca=root_ca)))
    return Plan.of(ops)


def list_behind(cluster: Cluster, nodes: tuple[Node, ...]) -> list[Node]:
    """The nodes that the rotation's present step still waits for."""
    rotation = cluster.root_ca.rotation
    behind = _list_behind(cluster, nodes)
    if rotation is not None and not rotation.is_issuing:
        return [node for node in behind if node.status.state is not NodeState.DOWN]
    return behind


def list_blocking(view: ClusterView) -> list[Node]:
    """The nodes without which the rotation cannot end: they are down."""
    nodes = view.list(Node)
    return [
        node
        for cluster in view.list(Cluster)
        for node in _list_behind(cluster, nodes)
        if node.status.state is NodeState.DOWN
    ]


def ends_soon(view: ClusterView, now: datetime) -> datetime | None:
    """When the root ends, or has ended, if that is near: nothing can be signed by it then."""
    for cluster in view.list(Cluster):
        end = x509.load_pem_x509_certificate(desired_root(cluster.root_ca)).not_valid_after_utc
        if end - now < SOON:
            return end
    return None


def _list_behind(cluster: Cluster, nodes: tuple[Node, ...]) -> list[Node]:
    rotation = cluster.root_ca.rotation
    if rotation is None:
        return []
    trust = trusted_pem(cluster.root_ca).decode()
    issuer = root_info(rotation.ca_cert_pem).cert_issuer_public_key if rotation.is_trusted else None
    return [node for node in nodes if not _is_abreast(node.description.tls_info, trust, issuer)]


def _is_abreast(said: TLSInfo, trust: str, issuer: bytes | None) -> bool:
    return said.trust_root == trust and issuer in (None, said.cert_issuer_public_key)


def read_authority(cert_pem: bytes, key_pem: bytes, now: datetime) -> tuple[bytes, bytes]:
    """A root and its key as a user gave them, as they are stored. Raises: InvalidArgument."""
    if max(len(cert_pem), len(key_pem)) > PEM_LIMIT_BYTES:
        raise InvalidArgument("the CA certificate or key is too large")
    try:
        cert = x509.load_pem_x509_certificate(cert_pem)
        constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
        cert.verify_directly_issued_by(cert)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise InvalidArgument("the CA certificate is not a self-signed root certificate in PEM") from None
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError):
        raise InvalidArgument("the CA key cannot be read: it must be PEM, without a passphrase") from None
    if not constraints.ca:
        raise InvalidArgument("the CA certificate is not one of a certificate authority")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument("the CA key must be an elliptic curve key (P-256, P-384 or P-521)")
    if not cert.not_valid_before_utc <= now < cert.not_valid_after_utc:
        start, end = cert.not_valid_before_utc, cert.not_valid_after_utc
        raise InvalidArgument(f"the CA certificate is not valid now ({now}): from {start} to {end}")
    if key.public_key() != cert.public_key():
        raise InvalidArgument("the CA key is not the key of the CA certificate")
    return cert.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
