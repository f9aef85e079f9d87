"""The certificate authority of the managers' etcd, apart from the nodes' one: etcd trusts every certificate
of its CA, so no worker may ever hold one. Managers share it; each certifies its own member.

A member's key must be a file that etcd can read, so it is not kept: each start makes a new one, on a tmpfs.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.manager.ca.root import ROOT_LIFE
from swarm.proto.identity import CLOCK_SKEW, new_key, write_private
from swarm.store.etcd_process import EtcdFiles

_CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-etcd-ca")])


def etcd_files(directory: Path) -> EtcdFiles:
    return EtcdFiles(ca=directory / "etcd-ca.crt", cert=directory / "etcd.crt", key=directory / "etcd.key")


@dataclass(frozen=True, slots=True)
class EtcdCA:
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


def create_etcd_ca(now: datetime) -> EtcdCA:
    key_pem = new_key()
    key = _load(key_pem)
    certificate = (
        _builder(_CA_NAME, key.public_key(), now - CLOCK_SKEW, now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return EtcdCA(certificate.public_bytes(serialization.Encoding.PEM), key_pem)


def certify_member(directory: Path, ca: EtcdCA, advertise_address: str) -> EtcdFiles:
    """Make a key and a certificate for this manager's member, and write what etcd reads (0600).

    It is valid as long as its CA is: a clock that is wrong now does not outlast its being set right.
    """
    files = etcd_files(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_pem = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-etcd")])
    addresses = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address(advertise_address)}
    names = [x509.DNSName("localhost"), *(x509.IPAddress(a) for a in sorted(addresses, key=str))]
    authority = x509.load_pem_x509_certificate(ca.certificate_pem)
    begin, end = authority.not_valid_before_utc, authority.not_valid_after_utc
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(name, _load(key_pem).public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(_load(ca.key_pem), hashes.SHA256())
    )
    write_private(files.ca, ca.certificate_pem)
    write_private(files.key, key_pem)
    write_private(files.cert, certificate.public_bytes(serialization.Encoding.PEM))
    return files


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_CA_NAME)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _load(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
