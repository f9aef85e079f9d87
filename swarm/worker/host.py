"""What this host is, as its agent tells the managers."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swarm import __version__
from swarm.model.types import EngineDescription, NodeDescription, Platform, Resources, TLSInfo

NANO = 10**9


def describe_host(root_pem: bytes, data_path_address: str) -> NodeDescription:
    return NodeDescription(
        hostname=socket.gethostname(),
        platform=Platform(architecture=platform.machine(), os="linux"),
        resources=Resources(nano_cpus=len(os.sched_getaffinity(0)) * NANO, memory_bytes=_memory_bytes()),
        engine=EngineDescription(engine_version=__version__),
        tls_info=tls_info(root_pem),
        data_path_address=data_path_address,
    )


def tls_info(root_pem: bytes) -> TLSInfo:
    """The root certificate as clients show it."""
    root = x509.load_pem_x509_certificate(root_pem)
    key = root.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return TLSInfo(
        trust_root=root_pem.decode(),
        cert_issuer_subject=root.subject.public_bytes(),
        cert_issuer_public_key=key,
    )


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
