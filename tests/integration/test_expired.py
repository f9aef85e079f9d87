"""Every host was off for longer than its certificate lives: who gets in again by itself, and who when let in.

The certificates on the hosts' disks are replaced by ones of the same root that ended 100 days ago. The tests
follow one another: h1 and h2 are managers, h3 is a worker that runs a container.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from swarm.base.clock import SystemClock
from swarm.manager.backup import read_backup
from swarm.manager.ca.root import Grant, sign
from swarm.proto.identity import read_subject
from swarm.secrets.archive import open_archive
from tests.integration.cluster import Cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

CERTIFICATE = "/var/lib/swarm/node/node.crt"
IS_VALID = f"openssl x509 -checkend 0 -noout -in {CERTIFICATE}"
AGO = timedelta(days=100)
SERVES_S = 20.0


@pytest.fixture(scope="module")
def cluster(lab, web_archive) -> Cluster:
    made = Cluster(lab(hosts=3))
    made.load(web_archive)
    made.swarm("h1", "init", "--advertise-addr", made.lab.address("h1"))
    for host, role in (("h2", "manager"), ("h3", "worker")):
        made.swarm(host, "join", "--token", token(made, role), join_address(made))
    made.wait_until(lambda: ready(made) == {"h1", "h2", "h3"}, "all are ready")
    made.create("web", "--constraint", "node.role==worker")
    made.wait_running("web", 1)
    return made


@pytest.fixture(scope="module")
def root(cluster, tmp_path_factory):
    """The cluster's root with its key."""
    path = tmp_path_factory.mktemp("backup") / "swarm.backup"
    cluster.output(
        "h1", "sh", "-c", f"echo pass > /run/pass; swarm system backup --passphrase-file /run/pass {path}"
    )
    return read_backup(open_archive(path.read_bytes(), "pass")).cluster.root_ca


def token(cluster: Cluster, role: str, via: str = "h1") -> str:
    return cluster.swarm(via, "join-token", "-q", role).strip()


def join_address(cluster: Cluster, host: str = "h1") -> str:
    return f"{cluster.lab.address(host)}:2377"


def ready(cluster: Cluster, via: str = "h1") -> set[str]:
    nodes = cluster.get("/nodes", via)
    return {n["Description"]["Hostname"] for n in nodes if n["Status"]["State"] == "ready"}


def ids(cluster: Cluster, via: str = "h1") -> dict[str, str]:
    return {n["Description"]["Hostname"]: n["ID"] for n in cluster.get("/nodes", via)}


def containers(cluster: Cluster, host: str) -> list[str]:
    return cluster.run(host, "pgrep", "-x", "conmon").stdout.split()


def expire(cluster: Cluster, root, host: str) -> None:
    """What lies on the host's disk ended 100 days ago; its swarmd reads it when it starts again."""
    pem = cluster.output(host, "cat", CERTIFICATE).encode()
    subject, key = read_subject(pem), x509.load_pem_x509_certificate(pem).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    life = timedelta(days=90)
    grant = Grant(node_id=subject.node_id, role=subject.role, cluster_id=subject.cluster_id, life=life)
    old = sign(root, key, grant, SystemClock().now() - AGO - life)
    assert cluster.lab.exec(host, ["tee", CERTIFICATE], feed=old.decode()).returncode == 0


def restart_all(cluster: Cluster, *hosts: str) -> None:
    """kill -9 of all at once: each is started again by its host."""
    pids = {host: str(cluster.daemon_pid(host)) for host in hosts}
    cluster.on_all(lambda host: cluster.output(host, "kill", "-9", pids[host]), hosts)
    look = ("pgrep", "-P", "1", "-f", "swarm.cli.swarmd")
    for host, old in pids.items():
        cluster.wait_until(
            lambda host=host, old=old: cluster.run(host, *look).stdout.strip() not in ("", old),
            f"{host} is restarted",
        )
        cluster.wait_daemon(host)


def test_managers_sign_their_own_and_a_worker_waits_to_be_let_in(cluster, root):
    before, held = ids(cluster), containers(cluster, "h3")
    for host in cluster.hosts:
        expire(cluster, root, host)
    restart_all(cluster, *cluster.hosts)
    cluster.wait_until(
        lambda: ready(cluster) == {"h1", "h2"}, "both managers serve and see each other", SERVES_S
    )
    assert "certificate.signed" in cluster.lab.log("h1")
    assert "certificate.signed" in cluster.lab.log("h2")
    info = cluster.get("/info", "h3")["Swarm"]
    assert "this node's certificate expired at" in info["Error"]
    assert "swarm join --token TOKEN MANAGER:2377" in info["Error"]
    assert containers(cluster, "h3") == held, "nothing is stopped meanwhile"
    assert ids(cluster) == before


def test_what_does_not_let_it_in_again(cluster):
    before = cluster.output("h3", "cat", CERTIFICATE)
    right = token(cluster, "worker")
    wrong = right[: len("SWMTKN-1-")] + "0" * 50 + right[-26:]
    address = join_address(cluster)
    assert "not of the swarm that it is in" in cluster.refused("h3", "join", "--token", wrong, address)
    refused = cluster.refused("h3", "join", "--token", right[:-25] + "0" * 25, address)
    assert "A valid join token is necessary" in refused
    refused = cluster.refused("h3", "join", "--advertise-addr", "127.0.0.1", "--token", right, address)
    assert f"it keeps {cluster.lab.address('h3')}; leave out --advertise-addr" in refused
    assert "already part of a swarm" in cluster.refused("h3", "init")
    assert "already part of a swarm" in cluster.refused("h1", "join", "--token", right, address)
    assert cluster.output("h3", "cat", CERTIFICATE) == before


def test_a_token_lets_the_worker_in_as_the_node_it_was(cluster):
    before = ids(cluster)
    said = cluster.docker(
        "h3", "swarm", "join", "--token", token(cluster, "worker"), join_address(cluster, "h2")
    )
    assert said == "This node joined a swarm as a worker.\n"
    cluster.wait_until(lambda: ready(cluster) == {"h1", "h2", "h3"}, "h3 is back")
    assert ids(cluster) == before
    cluster.wait_running("web", 1)
    refused = cluster.refused("h3", "join", "--token", token(cluster, "worker"), join_address(cluster))
    assert "already part of a swarm" in refused


def test_without_a_quorum_nobody_signs(cluster, root):
    cluster.lab.kill("h1")
    expire(cluster, root, "h2")
    restart_all(cluster, "h2")

    def told() -> bool:
        error: str = cluster.get("/info", "h2")["Swarm"]["Error"]
        return "signs another one when more than half of the managers are up" in error

    cluster.wait_until(told, "h2 says what it lacks", SERVES_S)
    assert cluster.run("h2", "sh", "-c", IS_VALID).returncode == 1


def test_one_manager_goes_on_alone_with_a_new_certificate(cluster):
    before = cluster.get("/info", "h2")["Swarm"]["NodeID"]
    said = cluster.swarm("h2", "init", "--force-new-cluster", timeout=60.0)
    assert f"current node ({before}) is now a manager" in said
    cluster.wait_until(lambda: "h2" in ready(cluster, "h2"), "h2 serves alone", SERVES_S)
    cluster.wait_until(lambda: "h3" in ready(cluster, "h2"), "the worker has found it", SERVES_S)
    assert cluster.run("h2", "sh", "-c", IS_VALID).returncode == 0
