"""Who a node is: its key, its certificate and the root it trusts.

A certificate says CN = node id, OU = role, O = cluster id; its names are the node id and `swarm-<role>`, so a
client checks that it talks to a manager by the name `swarm-manager`. Keys are P-256.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from swarm.base.failpoint import failpoint
from swarm.base.ids import ClusterID, NodeID
from swarm.model.types import NodeRole

MANAGER_NAME = "swarm-manager"
CLOCK_SKEW = timedelta(hours=1)
"""Clocks may differ by so much: certificates begin so much earlier (SwarmKit ca/certificates.go) and end so
much later than they say, for TLS. Managers hold a node to the end of its life by their own clock."""
_KEY, _CERT, _ROOT = "node.key", "node.crt", "root.crt"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a node certificate says of its holder."""

    node_id: NodeID
    role: NodeRole
    cluster_id: ClusterID
    not_before: datetime
    not_after: datetime
    """When its holder is shut out; TLS would take it for `CLOCK_SKEW` longer."""
    issuer_id: bytes
    """Which root's key signed it."""

    @property
    def issued_at(self) -> datetime:
        return self.not_before + CLOCK_SKEW

    @property
    def life(self) -> timedelta:
        return self.not_after - self.issued_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    key_pem: bytes
    cert_pem: bytes
    root_pem: bytes

    def __repr__(self) -> str:
        return f"Identity({self.subject!r})"

    @property
    def subject(self) -> Subject:
        return read_subject(self.cert_pem)


def role_name(role: NodeRole) -> str:
    return f"swarm-{role}"


def new_key() -> bytes:
    """A fresh P-256 key, PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_csr(key_pem: bytes) -> bytes:
    """A signing request for the key; its subject is ignored by the CA, which chooses all names itself."""
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def read_subject(cert_pem: bytes) -> Subject:
    """Raises ValueError when the certificate is not one of a node."""
    cert = x509.load_pem_x509_certificate(cert_pem)

    def attribute(oid: x509.ObjectIdentifier) -> str:
        values = cert.subject.get_attributes_for_oid(oid)
        if len(values) != 1:
            raise ValueError("not a node certificate")
        return str(values[0].value)

    unit = attribute(NameOID.ORGANIZATIONAL_UNIT_NAME)
    try:
        issuer = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        raise ValueError("not a node certificate") from None
    return Subject(
        NodeID(attribute(NameOID.COMMON_NAME)),
        NodeRole(unit.removeprefix("swarm-")),
        ClusterID(attribute(NameOID.ORGANIZATION_NAME)),
        cert.not_valid_before_utc,
        cert.not_valid_after_utc - CLOCK_SKEW,
        issuer or b"",
    )


def load_identity(directory: Path, open_key: Callable[[str, bytes], bytes]) -> Identity | None:
    """The identity kept in `directory`, or None when there is none; `open_key` opens what is sealed there."""
    try:
        return Identity(
            key_pem=open_key(_KEY, (directory / _KEY).read_bytes()),
            cert_pem=(directory / _CERT).read_bytes(),
            root_pem=(directory / _ROOT).read_bytes(),
        )
    except FileNotFoundError:
        return None


def save_identity(directory: Path, identity: Identity, seal_key: Callable[[str, bytes], bytes]) -> None:
    """Write all three files, the key sealed under its file's name.

    The certificate comes last, so that a half-written identity reads as none.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(directory / _KEY, seal_key(_KEY, identity.key_pem))
    failpoint("identity.key.saved")
    write_private(directory / _ROOT, identity.root_pem)
    failpoint("identity.root.saved")
    write_private(directory / _CERT, identity.cert_pem)
    failpoint("identity.cert.saved")


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` atomically with a file that only root reads, and wait until it is on disk."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    failpoint("private.file.written")
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
