"""Root certificates: which ones a text holds, which one issued a node's certificate, how clients see them.

A node trusts one root, and several while the cluster moves from one to another. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swarm.model.types import TLSInfo
from swarm.proto.identity import Identity

LIFE_TOLERANCE = timedelta(minutes=1)
"""Certificates count whole seconds."""


@dataclass(frozen=True, slots=True)
class CertificateTerms:
    """What managers want a node's certificate to be like."""

    trust_pem: bytes
    """The roots that the node is to trust."""
    issuer_pem: bytes
    """The root that is to have issued its certificate."""
    life: timedelta


def meets(identity: Identity, terms: CertificateTerms) -> bool:
    """Whether the node need not renew its certificate yet. One that ends earlier than wanted is fine."""
    subject = identity.subject
    return (
        identity.root_pem == terms.trust_pem
        and subject.issuer_id in key_ids(terms.issuer_pem)
        and subject.life <= terms.life + LIFE_TOLERANCE
    )


def join_pems(*pems: bytes) -> bytes:
    """Certificates in this order, each once."""
    found: dict[bytes, None] = {}
    for pem in pems:
        for cert in x509.load_pem_x509_certificates(pem) if pem else ():
            found[cert.public_bytes(serialization.Encoding.PEM)] = None
    return b"".join(found)


def key_id(root: x509.Certificate) -> bytes:
    """How certificates name the key that issued them."""
    try:
        return root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(root.public_key()).digest


def key_ids(pem: bytes) -> frozenset[bytes]:
    """Of each root in `pem`."""
    return frozenset(key_id(root) for root in x509.load_pem_x509_certificates(pem))


def root_info(root_pem: bytes) -> TLSInfo:
    """A root certificate as clients show it."""
    return _info(root_pem, x509.load_pem_x509_certificate(root_pem))


def identity_info(identity: Identity) -> TLSInfo:
    """What a node trusts, and who issued its certificate."""
    issuer_id = identity.subject.issuer_id
    roots = x509.load_pem_x509_certificates(identity.root_pem)
    issuer = next((root for root in roots if key_id(root) == issuer_id), None)
    return (
        TLSInfo(trust_root=identity.root_pem.decode()) if issuer is None else _info(identity.root_pem, issuer)
    )


def _info(trust_pem: bytes, issuer: x509.Certificate) -> TLSInfo:
    return TLSInfo(
        trust_root=trust_pem.decode(),
        cert_issuer_subject=issuer.subject.public_bytes(),
        cert_issuer_public_key=issuer.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
