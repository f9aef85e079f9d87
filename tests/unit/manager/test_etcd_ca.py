"""Certificates of the managers' etcd."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from swarm.manager.ca.etcd_ca import certify_member, create_etcd_ca

FOUNDED = datetime(2025, 1, 1, tzinfo=UTC)


def test_a_members_certificate_is_valid_as_long_as_its_authority_whatever_the_clock_says_now(tmp_path):
    ca = create_etcd_ca(FOUNDED)
    member = x509.load_pem_x509_certificate(certify_member(tmp_path, ca, "10.0.0.1").cert.read_bytes())
    authority = x509.load_pem_x509_certificate(ca.certificate_pem)
    assert member.not_valid_before_utc == authority.not_valid_before_utc < FOUNDED
    assert member.not_valid_after_utc == authority.not_valid_after_utc
