"""The way to another root, step by step, and what is accepted as one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from swarm.base.errors import InvalidArgument
from swarm.base.ids import ClusterID, NodeID, SequentialIds
from swarm.manager.ca.root import Grant, create_root, read_csr, sign
from swarm.manager.ca.rotation import (
    SOON,
    desired_root,
    ends_soon,
    issuing,
    list_behind,
    list_blocking,
    plan_rotation,
    read_authority,
    start_rotation,
    trusted_pem,
)
from swarm.model.objects import Cluster, JoinTokens, LimitedToken, Node
from swarm.model.specs import NodeSpec
from swarm.model.types import NodeDescription, NodeRole, NodeState
from swarm.model.view import Objects
from swarm.proto.identity import Identity, make_csr, new_key
from swarm.proto.roots import CertificateTerms, identity_info, meets

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLUSTER = ClusterID("c1")
LIFE = timedelta(days=90)


def a_root():
    return create_root(NOW, JoinTokens(worker="w", manager="m"))


def renewed(root_ca, node_id="n1", life=LIFE, role=NodeRole.WORKER):
    """The identity that a node has after it has renewed its certificate."""
    key = new_key()
    grant = Grant(node_id=NodeID(node_id), role=role, cluster_id=CLUSTER, life=life)
    certificate = sign(issuing(root_ca, role), read_csr(make_csr(key)), grant, NOW)
    return Identity(key_pem=key, cert_pem=certificate, root_pem=trusted_pem(root_ca))


def a_node(node_id, root_ca):
    role = NodeRole.MANAGER if node_id == "n1" else NodeRole.WORKER
    info = identity_info(renewed(root_ca, node_id, role=role))
    said = NodeDescription(hostname=node_id, tls_info=info)
    return Node(id=NodeID(node_id), spec=NodeSpec(role=role), description=said)


class Rotating:
    """A cluster of a manager (n1) and a worker (n2), driven by the planner."""

    def __init__(self):
        self.view = Objects()
        self.old = a_root()
        self.put(replace(Cluster(id=CLUSTER, root_ca=self.old)))
        for name in ("n1", "n2"):
            self.renew(name)

    def put(self, item):
        self.view.put(item)

    @property
    def cluster(self):
        return self.view.list(Cluster)[0]

    @property
    def root_ca(self):
        return self.cluster.root_ca

    def start(self):
        fresh = a_root()
        moved = start_rotation(self.root_ca, fresh.ca_cert_pem, fresh.ca_key_pem)
        self.put(replace(self.cluster, root_ca=moved))
        return fresh

    def renew(self, name):
        self.put(a_node(name, self.root_ca))

    def issuers(self):
        """Whose certificates managers and workers get."""
        return tuple(issuing(self.root_ca, role).ca_cert_pem for role in (NodeRole.MANAGER, NodeRole.WORKER))

    def down(self, name):
        node = self.view.get(Node, NodeID(name))
        self.put(replace(node, status=replace(node.status, state=NodeState.DOWN)))

    def step(self):
        """Whether the planner took one."""
        ops = plan_rotation(self.view, SequentialIds("s")).ops
        for op in ops:
            self.put(op.object)
        return bool(ops)


def test_each_step_waits_for_every_node():
    it = Rotating()
    assert not it.step(), "no rotation, no step"
    new = it.start()
    assert trusted_pem(it.root_ca) == new.ca_cert_pem + it.old.ca_cert_pem
    assert it.issuers() == (it.old.ca_cert_pem,) * 2, "not trusted by all: it issues nothing"
    for name in ("n1", "n2"):
        assert not it.step()
        assert name in [n.id for n in list_behind(it.cluster, it.view.list(Node))]
        it.renew(name)
    assert it.step()
    assert it.issuers() == (it.old.ca_cert_pem, new.ca_cert_pem), "first for workers"
    assert it.step()
    assert it.issuers() == (new.ca_cert_pem,) * 2
    assert trusted_pem(it.root_ca) == new.ca_cert_pem + it.old.ca_cert_pem
    it.renew("n1")
    assert not it.step()
    assert [n.id for n in list_behind(it.cluster, it.view.list(Node))] == ["n2"]
    it.renew("n2")
    assert it.step()
    assert it.root_ca.rotation is None
    assert (it.root_ca.ca_cert_pem, it.root_ca.ca_key_pem) == (new.ca_cert_pem, new.ca_key_pem)
    assert trusted_pem(it.root_ca) == new.ca_cert_pem, "the old root is gone"
    assert {it.root_ca.join_tokens.worker, it.root_ca.join_tokens.manager}.isdisjoint({"w", "m"})


def test_limited_tokens_end_with_the_root_that_they_name():
    it = Rotating()
    it.put(replace(it.cluster, root_ca=replace(it.root_ca, limited_tokens=(LimitedToken(id="t"),))))
    it.start()
    while it.root_ca.rotation is not None:
        for name in ("n1", "n2"):
            it.renew(name)
        assert it.step()
    assert it.root_ca.limited_tokens == ()


def test_a_node_that_is_down_keeps_workers_from_nothing_and_managers_from_what_it_does_not_trust():
    it = Rotating()
    it.put(a_node("n3", it.root_ca))
    it.down("n3")
    new = it.start()
    it.renew("n1")
    it.renew("n2")
    assert it.step()
    assert it.issuers() == (it.old.ca_cert_pem, new.ca_cert_pem), "it trusts the managers when it is back"
    it.renew("n2")
    assert not it.step()
    assert [n.id for n in list_behind(it.cluster, it.view.list(Node))] == ["n3"]


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_node_that_is_down_holds_the_end_up_until_it_is_back_or_removed(comes_back):
    it = Rotating()
    new = it.start()
    it.renew("n1")
    it.down("n2")
    assert it.step()
    assert not it.step()
    assert [n.id for n in list_blocking(it.view)] == ["n2"]
    if comes_back:
        it.renew("n2")
    else:
        it.view.remove(Node, "n2")
    assert it.step()
    assert it.issuers() == (new.ca_cert_pem,) * 2
    it.renew("n1")
    assert it.step()
    assert it.root_ca.rotation is None
    assert list_blocking(it.view) == []


def test_what_a_given_up_rotation_has_issued_stays_trusted_until_the_end():
    it = Rotating()
    first = it.start()
    for name in ("n1", "n2"):
        it.renew(name)
    it.step()
    it.renew("n2")  # it has a certificate of the first new root now
    second = it.start()
    assert desired_root(it.root_ca) == second.ca_cert_pem
    assert trusted_pem(it.root_ca) == second.ca_cert_pem + it.old.ca_cert_pem + first.ca_cert_pem
    assert it.issuers() == (it.old.ca_cert_pem,) * 2
    while it.root_ca.rotation is not None:
        for name in ("n1", "n2"):
            it.renew(name)
        assert it.step()
    assert trusted_pem(it.root_ca) == second.ca_cert_pem


def test_terms_that_a_certificate_does_not_meet():
    root, other = a_root(), a_root()
    identity = renewed(root)
    terms = CertificateTerms(root.ca_cert_pem, root.ca_cert_pem, LIFE)
    assert meets(identity, terms)
    assert meets(identity, replace(terms, life=LIFE * 2)), "a longer life comes with the next renewal"
    assert not meets(identity, replace(terms, life=LIFE / 2))
    assert not meets(identity, replace(terms, issuer_pem=other.ca_cert_pem))
    assert not meets(identity, replace(terms, trust_pem=other.ca_cert_pem + root.ca_cert_pem))


# --- roots of the user's -----------------------------------------------------------------------------------


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def own_root(key, *, ca=True, signer=None, start=NOW - timedelta(days=1), life=LIFE):
    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name("our root"))
        .issuer_name(name("our root" if signer is None else "another"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    return builder.sign(signer or key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_root_of_the_user_s_is_taken_and_signs():
    key = ec.generate_private_key(ec.SECP384R1())
    cert_pem, key_pem = read_authority(b"# ours\n" + own_root(key), pem_of(key), NOW)
    assert cert_pem == own_root_pem(cert_pem)
    root_ca = replace(a_root(), ca_cert_pem=cert_pem, ca_key_pem=key_pem)
    assert identity_info(renewed(root_ca)).cert_issuer_public_key


def own_root_pem(pem):
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.PEM)


KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        (b"", pem_of(KEY), "not a self-signed root certificate"),
        (b"x" * 70_000, pem_of(KEY), "too large"),
        (own_root(KEY, signer=OTHER), pem_of(KEY), "not a self-signed root certificate"),
        (own_root(KEY, ca=False), pem_of(KEY), "not one of a certificate authority"),
        (own_root(KEY), pem_of(OTHER), "not the key of the CA certificate"),
        (own_root(KEY), b"nothing", "key cannot be read"),
        (own_root(RSA), pem_of(RSA), "elliptic curve"),
        (own_root(KEY, start=NOW - LIFE * 2), pem_of(KEY), "not valid now"),
    ],
)
def test_roots_that_cannot_be_used_are_refused(cert, key, message):
    with pytest.raises(InvalidArgument, match=message):
        read_authority(cert, key, NOW)


def test_a_root_that_is_about_to_end_is_told_of_until_another_one_is_on_its_way():
    cluster = Rotating()
    end = x509.load_pem_x509_certificate(cluster.old.ca_cert_pem).not_valid_after_utc
    assert ends_soon(cluster.view, end - SOON) is None
    assert ends_soon(cluster.view, end - SOON + timedelta(seconds=1)) == end
    assert ends_soon(cluster.view, end + timedelta(days=1)) == end
    new = create_root(end, cluster.old.join_tokens)
    rotating = start_rotation(cluster.old, new.ca_cert_pem, new.ca_key_pem)
    cluster.put(Cluster(id=CLUSTER, root_ca=rotating))
    assert ends_soon(cluster.view, end) is None
