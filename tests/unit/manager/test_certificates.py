"""The authority signs what it decides itself, whatever a request says; tokens and the throttle."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from swarm.base.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from swarm.base.ids import ClusterID, NodeID, new_id
from swarm.manager.ca.certificates import certify_own, counts
from swarm.manager.ca.join_server import WRONG_TOKENS, WRONG_TOKENS_WINDOW_S, Throttle
from swarm.manager.ca.root import (
    CSR_LIMIT_BYTES,
    Grant,
    create_root,
    digest_of,
    node_id_for,
    read_csr,
    sign,
    token_text,
)
from swarm.manager.ca.rotation import start_rotation
from swarm.model.join_token import parse_token
from swarm.model.objects import Cluster, JoinTokens, Node
from swarm.model.specs import ClusterSpec, NodeSpec
from swarm.model.types import NodeRole
from swarm.model.view import Objects
from swarm.proto.identity import CLOCK_SKEW, Identity, make_csr, new_key, read_subject
from swarm.proto.roots import key_ids

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLUSTER = ClusterID("c1")


@pytest.fixture(scope="module")
def root():
    return create_root(NOW, JoinTokens(worker=new_id(), manager=new_id()))


def pem(request):
    return request.public_bytes(serialization.Encoding.PEM)


def issue(root, csr, **grant):
    wanted = {
        "node_id": NodeID("n1"),
        "role": NodeRole.WORKER,
        "cluster_id": CLUSTER,
        "life": timedelta(days=90),
    }
    return x509.load_pem_x509_certificate(sign(root, read_csr(csr), Grant(**(wanted | grant)), NOW))


def test_a_request_decides_nothing_but_the_key(root):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "other-cluster"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager"),
            x509.NameAttribute(NameOID.COMMON_NAME, "somebody-else"),
        ]
    )
    evil = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("swarm-manager")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert = issue(root, pem(evil))
    subject = read_subject(cert.public_bytes(serialization.Encoding.PEM))
    assert (subject.node_id, subject.role, subject.cluster_id) == ("n1", NodeRole.WORKER, CLUSTER)
    names = cert.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert names.get_values_for_type(x509.DNSName) == ["n1", "swarm-worker"]
    constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    assert not cert.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert cert.public_key() == key.public_key()


def test_a_certificate_is_dated_back_an_hour_and_does_not_outlive_its_root(root):
    cert = issue(root, make_csr(new_key()), life=timedelta(days=100 * 365))
    assert cert.not_valid_before_utc == NOW - timedelta(hours=1)
    assert cert.not_valid_after_utc == x509.load_pem_x509_certificate(root.ca_cert_pem).not_valid_after_utc


def csr_of(key, algorithm=None):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return pem(builder.sign(key, algorithm))


def forged():
    """A request whose signature is of another key than the one it asks for."""
    good = x509.load_pem_x509_csr(make_csr(new_key()))
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    der[-3] ^= 1
    try:
        return pem(x509.load_der_x509_csr(bytes(der)))
    except ValueError:
        return b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"


BAD_REQUESTS = {
    "nothing": lambda: b"",
    "noise": lambda: b"\x00\xff" * 100,
    "a certificate": lambda: create_root(NOW, JoinTokens()).ca_cert_pem,
    "too large": lambda: b"-----BEGIN CERTIFICATE REQUEST-----\n" + b"A" * CSR_LIMIT_BYTES,
    "an RSA key": lambda: csr_of(rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "an Ed25519 key": lambda: csr_of(ed25519.Ed25519PrivateKey.generate()),
    "another curve": lambda: csr_of(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
    "an obscure curve": lambda: csr_of(ec.generate_private_key(ec.BrainpoolP256R1()), hashes.SHA256()),
    "a false signature": forged,
}


@pytest.mark.parametrize("make", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_requests_are_refused(make):
    with pytest.raises(InvalidArgument):
        read_csr(make())


def test_a_key_is_one_node_in_a_cluster_and_another_elsewhere():
    csr = make_csr(new_key())
    assert node_id_for(read_csr(csr), CLUSTER) == node_id_for(read_csr(csr), CLUSTER)
    assert node_id_for(read_csr(csr), CLUSTER) != node_id_for(read_csr(csr), ClusterID("c2"))
    assert node_id_for(read_csr(csr), CLUSTER) != node_id_for(read_csr(make_csr(new_key())), CLUSTER)


def test_a_token_pins_the_root_and_keeps_its_secret_to_itself(root):
    token = parse_token(f" {token_text(root, root.join_tokens.worker)}\n")
    assert token.root_digest == digest_of(root.ca_cert_pem)
    assert token.secret == root.join_tokens.worker
    assert token.secret not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SWMTKN-1",
        "SWMTKN-2-" + "0" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "0" * 50 + "-" + "0" * 24,
        "SWMTKN-1-" + "0" * 49 + "-" + "0" * 25,
        "SWMTKN-1-" + "0" * 50 + "-" + "A" * 25,
        "SWMTKN-1-" + "0" * 50 + "-" + "0" * 25 + "-x",
        "swmtkn-1-" + "0" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "٣" * 50 + "-" + "0" * 25,
    ],
)
def test_garbled_tokens_are_refused_without_repeating_them(text):
    with pytest.raises(InvalidArgument, match="invalid join token") as refused:
        parse_token(text)
    assert len(text) < 20 or text not in str(refused.value)


def test_wrong_tokens_are_limited_by_address_for_a_while():
    throttle = Throttle()
    for n in range(WRONG_TOKENS):
        assert not throttle.is_blocked("a", n)
        throttle.wrong("a", n)
    assert throttle.is_blocked("a", WRONG_TOKENS)
    assert not throttle.is_blocked("b", WRONG_TOKENS)
    assert not throttle.is_blocked("a", WRONG_TOKENS_WINDOW_S + 1)


def test_the_throttle_s_memory_is_bounded():
    throttle = Throttle()
    for n in range(25_000):
        throttle.wrong(f"{n}", 0)
    assert len(throttle._wrong) <= 10_000


@pytest.mark.parametrize("behind", [-CLOCK_SKEW, timedelta(0), CLOCK_SKEW])
def test_the_shortest_life_holds_by_a_clock_that_differs(root, behind):
    """TLS takes a certificate all its life by any clock that may join; its life is what was asked."""
    life = timedelta(hours=1)
    cert = issue(root, make_csr(new_key()), life=life)
    start, end = cert.not_valid_before_utc, cert.not_valid_after_utc
    assert start <= NOW - behind
    assert NOW + life - behind <= end
    subject = read_subject(cert.public_bytes(serialization.Encoding.PEM))
    assert (subject.issued_at, subject.not_after, subject.life) == (NOW, NOW + life, life)


# --- a manager's own ---------------------------------------------------------------------------------------


def managers_view(root, identity, **node):
    """A store in which the identity's holder is a manager, or what `node` says."""
    view = Objects()
    view.put(Cluster(id=CLUSTER, root_ca=root))
    holder = Node(id=identity.subject.node_id, spec=NodeSpec(role=NodeRole.MANAGER))
    view.put(replace(holder, **node))
    return view


@pytest.fixture(scope="module")
def ended(root):
    """A manager's identity whose certificate is of long ago."""
    key_pem = new_key()
    key = read_csr(make_csr(key_pem))
    grant = Grant(
        node_id=node_id_for(key, CLUSTER), role=NodeRole.MANAGER, cluster_id=CLUSTER, life=timedelta(days=90)
    )
    return Identity(key_pem=key_pem, cert_pem=sign(root, key, grant, NOW), root_pem=root.ca_cert_pem)


LATER = NOW + timedelta(days=400)


def test_a_certificate_counts_from_its_beginning_to_its_end(ended):
    assert counts(ended, NOW)
    assert not counts(ended, NOW - CLOCK_SKEW - timedelta(seconds=1))
    assert counts(ended, NOW + timedelta(days=90) - timedelta(seconds=1))
    assert not counts(ended, NOW + timedelta(days=90))


def test_a_manager_signs_its_own_as_the_records_say(root, ended):
    renewed = certify_own(managers_view(root, ended), ended, LATER)
    assert counts(renewed, LATER)
    assert renewed.key_pem == ended.key_pem
    assert renewed.subject.life == ClusterSpec().node_cert_expiry
    assert (renewed.subject.node_id, renewed.subject.role) == (ended.subject.node_id, NodeRole.MANAGER)


def test_during_a_rotation_it_is_of_the_root_that_issues_for_managers(root, ended):
    other = create_root(LATER, root.join_tokens)
    rotating = start_rotation(root, other.ca_cert_pem, other.ca_key_pem)
    renewed = certify_own(managers_view(rotating, ended), ended, LATER)
    assert renewed.subject.issuer_id in key_ids(root.ca_cert_pem)
    assert renewed.root_pem == other.ca_cert_pem + root.ca_cert_pem


@pytest.mark.parametrize("role", [NodeRole.WORKER, None])
def test_who_is_no_manager_any_more_signs_nothing(root, ended, role):
    view = managers_view(root, ended, spec=NodeSpec(role=NodeRole.WORKER))
    if role is None:
        view.remove(Node, ended.subject.node_id)
    with pytest.raises(PermissionDenied, match="is not a manager of the swarm any more"):
        certify_own(view, ended, LATER)


@pytest.mark.parametrize("now", [NOW - timedelta(days=2), NOW + timedelta(days=20 * 365)])
def test_a_root_that_does_not_count_signs_nothing(root, ended, now):
    with pytest.raises(FailedPrecondition, match="root certificate is valid from 2025-12-31 23:00:00 to"):
        certify_own(managers_view(root, ended), ended, now)
