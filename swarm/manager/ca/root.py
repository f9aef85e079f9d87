"""The cluster's certificate authority: creates the root, signs what nodes ask for.

Only the public key is taken from a request: names, role, times and extensions are the CA's. A root lives 20
years; node certificates are dated back one hour, and
forward one at the end, against clock skew (SwarmKit ca/certificates.go does the former).
Invariant: `node_id_for` gives the same key the same node, so a replayed join makes no second one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.base.errors import InvalidArgument
from swarm.base.ids import ID_LENGTH, ClusterID, NodeID, base36
from swarm.model.join_token import JoinToken, root_digest
from swarm.model.objects import JoinTokens, RootCA
from swarm.model.types import NodeRole
from swarm.proto.identity import CLOCK_SKEW, role_name
from swarm.proto.roots import key_id

ROOT_LIFE = timedelta(days=20 * 365)
CSR_LIMIT_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a certificate is to say."""

    node_id: NodeID
    role: NodeRole
    cluster_id: ClusterID
    life: timedelta


def create_root(now: datetime, tokens: JoinTokens) -> RootCA:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return RootCA(
        ca_key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        ca_cert_pem=cert.public_bytes(serialization.Encoding.PEM),
        join_tokens=tokens,
    )


def token_text(root: RootCA, secret: str) -> str:
    """The whole token for one of the root's secrets."""
    return str(JoinToken(digest_of(root.ca_cert_pem), secret))


def digest_of(root_pem: bytes) -> str:
    """The digest a join token pins. Raises ValueError when it is no certificate."""
    return root_digest(x509.load_pem_x509_certificate(root_pem).public_bytes(serialization.Encoding.DER))


def read_csr(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request, proven to be the sender's.

    Raises: InvalidArgument.
    """
    if len(csr_pem) > CSR_LIMIT_BYTES:
        raise InvalidArgument("certificate request is too large")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        proven = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise InvalidArgument("certificate request cannot be read") from None
    if not proven:
        raise InvalidArgument("certificate request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument("certificate request must be for a P-256 key")
    return key


def node_id_for(key: ec.EllipticCurvePublicKey, cluster_id: ClusterID) -> NodeID:
    """The id that a key's holder has in this cluster: 128 bits of a hash of both."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(cluster_id.encode() + spki).digest()
    return NodeID(base36(int.from_bytes(digest[:16], "big"), ID_LENGTH))


def sign(root: RootCA, key: ec.EllipticCurvePublicKey, grant: Grant, now: datetime) -> bytes:
    """A node certificate, PEM."""
    issuer = x509.load_pem_x509_certificate(root.ca_cert_pem)
    issuer_key = serialization.load_pem_private_key(root.ca_key_pem, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, grant.cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role_name(grant.role)),
            x509.NameAttribute(NameOID.COMMON_NAME, grant.node_id),
        ]
    )
    names = x509.SubjectAlternativeName([x509.DNSName(grant.node_id), x509.DNSName(role_name(grant.role))])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + grant.life + CLOCK_SKEW, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(key_id(issuer), None, None), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return cert.public_bytes(serialization.Encoding.PEM)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
