"""Addresses a user means, what a cluster starts with, and what a node keeps on disk."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime

import pytest
from cryptography import x509

from swarm.api.backend import InitRequest
from swarm.base.errors import FailedPrecondition, InvalidArgument, Unavailable
from swarm.base.ids import SequentialIds
from swarm.model.defaults import CLUSTER_PORTS, ENCRYPTION_PORTS
from swarm.model.objects import Cluster, Network, Node
from swarm.model.types import NodeRole, Protocol
from swarm.node.addresses import (
    LocalAddress,
    choose_advertised,
    choose_listen,
    ensure_free,
    local_addresses,
    source_towards,
    split_port,
)
from swarm.node.files import Membership, Paths, forget_membership, load_membership, save_membership
from swarm.node.founding import check_pools, found_cluster
from swarm.node.vault import create_vault
from swarm.overlay import encryption
from swarm.proto.identity import Identity, load_identity, new_key, read_subject, save_identity, write_private

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONE = (LocalAddress("eth0", "192.0.2.1"),)
TWO = (*ONE, LocalAddress("eth1", "198.51.100.1"))


@pytest.mark.parametrize(
    ("wanted", "local", "found"),
    [
        ("", ONE, ("192.0.2.1", 2377)),
        ("eth1", TWO, ("198.51.100.1", 2377)),
        ("eth1:3000", TWO, ("198.51.100.1", 3000)),
        ("203.0.113.9", TWO, ("203.0.113.9", 2377)),
        ("203.0.113.9:3000", TWO, ("203.0.113.9", 3000)),
    ],
)
def test_the_address_that_is_advertised(wanted, local, found):
    assert choose_advertised(wanted, local) == found


@pytest.mark.parametrize(
    ("wanted", "local", "message"),
    [
        ("", (), "could not find the system's IP address - specify one with --advertise-addr"),
        ("", TWO, "192.0.2.1 on interface eth0 and 198.51.100.1 on interface eth1"),
        ("eth0", (*ONE, LocalAddress("eth0", "192.0.2.2")), "more than one IPv4 address"),
        ("eth7", ONE, "must be a non-zero IP address or network interface"),
        ("0.0.0.0", ONE, "non-zero"),
        ("2001:db8::1", ONE, "address"),
        ("192.0.2.1:0", ONE, "invalid port"),
        ("192.0.2.1:65536", ONE, "invalid port"),
        ("192.0.2.1:http", ONE, "invalid port"),
    ],
)
def test_addresses_that_cannot_be_advertised(wanted, local, message):
    with pytest.raises(InvalidArgument, match=message) as refused:
        choose_advertised(wanted, local)
    assert "\n" not in str(refused.value)


def test_the_address_to_listen_on():
    assert choose_listen("") == "0.0.0.0"
    assert choose_listen("192.0.2.1:2377") == "192.0.2.1"
    for wrong in ("eth0", "192.0.2.1:99", "::1"):
        with pytest.raises(InvalidArgument):
            choose_listen(wrong)


def test_ports_are_taken_off():
    assert split_port("host", 7) == ("host", 7)
    assert split_port("host:8", 7) == ("host", 8)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port} .*: free the port"):
            ensure_free("127.0.0.1", (port,))
    ensure_free("127.0.0.1", (port,))


async def test_this_host_s_addresses():
    assert all(not a.interface.startswith(("lo", "swl")) for a in await local_addresses())
    assert await source_towards("127.0.0.1", 2377) == "127.0.0.1"


# --- founding ----------------------------------------------------------------------------------------------


def found(**request):
    foundation = found_cluster(InitRequest(**request), "192.0.2.1:2377", NOW, SequentialIds("x"))
    return foundation, {type(op.object): op.object for op in foundation.seed.ops}


def test_what_a_cluster_starts_with():
    foundation, objects = found()
    subject = foundation.identity.subject
    cluster = objects[Cluster]
    assert (subject.node_id, subject.role) == (objects[Node].id, NodeRole.MANAGER)
    assert subject.cluster_id == cluster.id
    assert objects[Node].manager_status.addr == "192.0.2.1:2377"
    assert objects[Network].spec.ingress
    assert cluster.root_ca.join_tokens.worker != cluster.root_ca.join_tokens.manager
    root = x509.load_pem_x509_certificate(cluster.root_ca.ca_cert_pem)
    x509.load_pem_x509_certificate(foundation.identity.cert_pem).verify_directly_issued_by(root)


def test_private_keys_do_not_show():
    foundation, _ = found()
    assert "PRIVATE" not in repr(foundation.identity)


def test_address_pools_of_the_user():
    _, objects = found(default_address_pools=("10.20.0.0/16", "10.30.0.0/16"), subnet_size=24)
    assert objects[Cluster].default_address_pools == ("10.20.0.0/16", "10.30.0.0/16")
    assert objects[Cluster].subnet_size == 24
    assert check_pools(("10.0.0.0/8",), 0) == []


@pytest.mark.parametrize(
    ("pools", "size", "message"),
    [
        (("nonsense",), 0, "invalid address pool nonsense: it should be a network like"),
        (("10.20.0.1/16",), 0, "invalid address pool"),
        (("10.20.0.0/16", "10.20.1.0/24"), 0, "overlaps"),
        (("10.20.0.0/16",), 8, "invalid subnet size 8 .* from 16 to 29"),
        (("10.20.0.0/16",), 30, "invalid subnet size 30"),
    ],
)
def test_address_pools_that_cannot_be_used(pools, size, message):
    with pytest.raises(InvalidArgument, match=message):
        check_pools(pools, size)


def test_the_data_paths_port_is_kept_with_the_cluster():
    assert found()[1][Cluster].data_path_port == 4789
    assert found(data_path_port=7789)[1][Cluster].data_path_port == 7789


@pytest.mark.parametrize("port", [80, 1023, 49151, 70000, 2382, 2384])
def test_a_data_paths_port_that_cannot_be_used(port):
    with pytest.raises(InvalidArgument, match=f"invalid data path port {port}: it must be from 1024 to"):
        found(data_path_port=port)


def test_the_ports_of_encrypted_networks_are_the_clusters_own():
    assert ENCRYPTION_PORTS == encryption.PORTS
    assert set(ENCRYPTION_PORTS) <= CLUSTER_PORTS[Protocol.UDP]


# --- on disk -----------------------------------------------------------------------------------------------

MEMBERSHIP = Membership(
    role=NodeRole.WORKER,
    advertise_address="192.0.2.2",
    data_path_address="192.0.2.2",
    listen_address="0.0.0.0",
    join_port=2377,
    managers=("192.0.2.1:2378",),
)


@pytest.fixture
def paths(tmp_path):
    return Paths(state=tmp_path / "state", run=tmp_path / "run")


def test_a_membership_is_kept_and_forgotten(paths):
    assert load_membership(paths) is None
    save_membership(paths, MEMBERSHIP)
    assert load_membership(paths) == MEMBERSHIP
    for kept in (paths.images, paths.volumes, paths.worker, paths.etcd):
        kept.mkdir(parents=True)
    paths.pending_key.write_bytes(b"of a join under way")
    forget_membership(paths)
    assert [file.name for file in paths.identity.iterdir()] == [paths.pending_key.name]
    paths.pending_key.unlink()
    forget_membership(paths)
    forget_membership(paths)
    assert load_membership(paths) is None
    assert sorted(p.name for p in paths.state.iterdir()) == ["images", "volumes"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"role": "king"}', json.dumps({"role": "worker"})])
def test_a_membership_that_cannot_be_read_is_no_fresh_node(paths, content):
    save_membership(paths, MEMBERSHIP)
    (paths.identity / "membership.json").write_text(content)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        load_membership(paths)


def test_an_identity_is_private_sealed_and_whole_or_none(tmp_path):
    foundation, _ = found()
    folder = tmp_path / "node"
    vault = create_vault(folder)
    assert load_identity(folder, vault.open) is None
    save_identity(folder, foundation.identity, vault.seal)
    assert load_identity(folder, vault.open) == foundation.identity
    assert foundation.identity.key_pem not in (folder / "node.key").read_bytes()
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "node.crt").unlink()
    assert load_identity(folder, vault.open) is None


def test_a_private_file_is_replaced_whole(tmp_path):
    write_private(tmp_path / "key", b"long content")
    write_private(tmp_path / "key", b"short")
    assert (tmp_path / "key").read_bytes() == b"short"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_certificate_of_something_else_is_no_node_s():
    foundation, objects = found()
    with pytest.raises(ValueError, match="not a node certificate"):
        read_subject(objects[Cluster].root_ca.ca_cert_pem)
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own words
        read_subject(new_key())
    assert Identity(key_pem=b"", cert_pem=foundation.identity.cert_pem, root_pem=b"").subject.role
