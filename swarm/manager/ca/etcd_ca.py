"""The certificate authority of the managers' etcd, apart from the nodes' one: etcd trusts every certificate
of its CA, so no worker may ever hold one. Written once at `swarm init`, all files 0600.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.manager.ca.root import BACKDATE, ROOT_LIFE
from swarm.proto.identity import write_private
from swarm.store.etcd_process import EtcdFiles


def etcd_files(directory: Path) -> EtcdFiles:
    return EtcdFiles(ca=directory / "etcd-ca.crt", cert=directory / "etcd.crt", key=directory / "etcd.key")


def create_etcd_ca(directory: Path, advertise_address: str, now: datetime) -> EtcdFiles:
    """Make the CA and this manager's certificate under it."""
    files = etcd_files(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-etcd-ca")])
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-etcd")])
    addresses = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address(advertise_address)}
    names = [x509.DNSName("localhost"), *(x509.IPAddress(a) for a in sorted(addresses, key=str))]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    cert = (
        _builder(name, ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(directory / "etcd-ca.key", _key_pem(ca_key))
    write_private(files.ca, ca.public_bytes(serialization.Encoding.PEM))
    write_private(files.key, _key_pem(key))
    write_private(files.cert, cert.public_bytes(serialization.Encoding.PEM))
    return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + ROOT_LIFE)
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
