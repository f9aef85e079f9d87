"""A swarm whose state is in an etcd cluster of somebody else's: here of three members, on the lab's hosts."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from swarm.base.clock import SystemClock
from swarm.manager.ca.etcd_ca import certify_member, create_etcd_ca
from tests.integration.cluster import Cluster

pytestmark = pytest.mark.root

PORT, PEER_PORT = 12379, 12380


class Etcds:
    """One etcd on each of some hosts of a lab, with certificates of their own CA."""

    def __init__(self, cluster, directory, hosts):
        self.cluster = cluster
        self.hosts = hosts
        self.directory = directory
        ca = create_etcd_ca(SystemClock().now())
        self.files = {h: certify_member(directory / h, ca, self._address(h)) for h in hosts}

    @property
    def endpoints(self):
        return ",".join(f"https://{self._address(h)}:{PORT}" for h in self.hosts)

    def flags(self, host="h1"):
        files = self.files[host]
        return (
            *("--etcd-endpoints", self.endpoints),
            *("--etcd-cacert", str(files.ca), "--etcd-cert", str(files.cert), "--etcd-key", str(files.key)),
        )

    def start(self, host, state="new"):
        files, address = self.files[host], self._address(host)
        members = ",".join(f"{h}=https://{self._address(h)}:{PEER_PORT}" for h in self.hosts)
        client, peer = f"https://{address}:{PORT}", f"https://{address}:{PEER_PORT}"
        tls = (("cert-file", files.cert), ("key-file", files.key), ("trusted-ca-file", files.ca))
        words = [
            *("setsid", "etcd", f"--name={host}", f"--data-dir={self.directory / host / 'data'}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--initial-cluster={members}", f"--initial-cluster-state={state}"),
            *("--client-cert-auth", "--peer-client-cert-auth", "--logger=zap", "--log-level=warn"),
            *(f"--{prefix}{flag}={value}" for prefix in ("", "peer-") for flag, value in tls),
        ]
        log = self.directory / host / "log"
        self.cluster.output(host, "sh", "-c", f"{' '.join(words)} > {log} 2>&1 < /dev/null &")

    def stop(self, host):
        self.cluster.output(host, "sh", "-c", "kill -9 $(pgrep -x etcd)")

    def list_keys(self):
        files = self.files["h1"]
        return self.cluster.output(
            *("h1", "env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={self.endpoints}"),
            *(f"--cacert={files.ca}", f"--cert={files.cert}", f"--key={files.key}"),
            *("get", "--prefix", "/", "--keys-only"),
        ).split()

    def _address(self, host):
        return str(self.cluster.lab.address(host))


@pytest.fixture(scope="module")
def etcds(lab, web_archive, tmp_path_factory):
    cluster = Cluster(lab(hosts=3))
    cluster.load(web_archive)
    made = Etcds(cluster, tmp_path_factory.mktemp("etcds"), cluster.hosts)
    for host in cluster.hosts:
        made.start(host)
    return made


@pytest.fixture(scope="module")
def swarm(etcds):
    """h1 founds it over the etcds, h2 joins as a manager, h3 as a worker."""
    cluster = etcds.cluster

    def founded():
        with suppress(AssertionError):
            return cluster.swarm("h1", "init", "--advertise-addr", cluster.lab.address("h1"), *etcds.flags())

    cluster.wait_until(founded, "the swarm is founded")
    for host, role in (("h2", "manager"), ("h3", "worker")):
        token = cluster.swarm("h1", "join-token", "-q", role).strip()
        said = cluster.swarm(host, "join", "--token", token, f"{cluster.lab.address('h1')}:2377")
        assert role in said
    return cluster


def store(cluster, host):
    return json.loads(cluster.swarm(host, "system", "info", "--format", "json"))["Store"]


def is_well(found):
    return found["State"] == "OK" and [m["Reachable"] for m in found["Members"]] == [True] * 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--etcd-endpoints", "http://10.0.0.1:2379"), "needs --etcd-cacert"),
        (("--etcd-cacert", "/etc/hosts"), "need --etcd-endpoints"),
    ],
)
def test_half_of_what_is_needed_is_refused(etcds, flags, message):
    assert message in etcds.cluster.refused("h1", "init", *flags)


def test_wrong_endpoints_and_files_are_refused(etcds):
    cluster, flags = etcds.cluster, list(etcds.flags())
    flags[1] = "http://10.0.0.1:2379"
    assert "it should be like https://" in cluster.refused("h1", "init", *flags)
    flags[1] = f"https://{cluster.lab.address('h1')}:1"
    assert "no etcd answers at" in cluster.refused("h1", "init", *flags)
    flags[3] = "/nowhere"
    assert "cannot read --etcd-cacert /nowhere" in cluster.refused("h1", "init", *flags)
    assert cluster.get("/info", "h1")["Swarm"]["LocalNodeState"] == "inactive"


def test_managers_keep_their_state_there_and_run_no_etcd(swarm, etcds):
    swarm.create("web", "--replicas", "3")
    swarm.wait_running("web", 3)
    for host in ("h1", "h2"):
        assert [s["Spec"]["Name"] for s in swarm.get("/services", host)] == ["web"]
        assert swarm.run(host, "ls", "/var/lib/swarm/etcd").returncode != 0
        assert store(swarm, host)["External"]
        swarm.wait_until(lambda host=host: is_well(store(swarm, host)), f"{host} reaches all etcds")
    assert all(key.startswith("/swarm/") for key in etcds.list_keys())


def test_another_swarm_is_not_let_in(swarm, etcds):
    swarm.swarm("h3", "leave")
    message = swarm.refused("h3", "init", "--advertise-addr", swarm.lab.address("h3"), *etcds.flags("h3"))
    assert "has keys under /swarm/ already" in message
    assert "own" in swarm.refused("h1", "init", "--force-new-cluster")
    assert "nothing to repair" in swarm.refused("h1", "system", "repair")
    assert swarm.get("/services", "h1")


def test_it_goes_on_when_one_of_the_endpoints_fails_and_after_restarts(swarm, etcds):
    etcds.stop("h1")

    def scaled():
        with suppress(AssertionError):
            return swarm.swarm("h1", "service", "scale", "-d", "web=2")

    swarm.wait_until(scaled, "writes succeed again", 15.0)
    swarm.wait_until(lambda: len(swarm.running("web")) == 2, "two tasks run")
    swarm.kill_daemon("h1")
    swarm.wait_daemon("h1")
    swarm.wait_until(lambda: swarm.get("/services", "h1"), "the manager serves again")

    def reachable():
        return sorted(m["Reachable"] for m in store(swarm, "h2")["Members"])

    swarm.wait_until(lambda: reachable() == [False, True, True], "one does not answer")
    etcds.start("h1", "existing")
    swarm.wait_until(lambda: reachable() == [True, True, True], "all etcds answer again")
    swarm.swarm("h2", "node", "demote", "h1")
    swarm.wait_until(lambda: len(managers(swarm)) == 1, "h1 is a worker")


@pytest.fixture(scope="module")
def lone(lab, web_archive, tmp_path_factory):
    """(cluster, etcds): an etcd of one member on h1; h1 and h2 are managers over it."""
    cluster = Cluster(lab(hosts=2))
    cluster.load(web_archive)
    etcds = Etcds(cluster, tmp_path_factory.mktemp("lone"), ("h1",))
    etcds.start("h1")
    first = cluster.lab.address("h1")

    def founded():
        with suppress(AssertionError):
            return cluster.swarm("h1", "init", "--advertise-addr", first, *etcds.flags())

    cluster.wait_until(founded, "the swarm is founded")
    token = cluster.swarm("h1", "join-token", "-q", "manager").strip()
    assert "manager" in cluster.swarm("h2", "join", "--token", token, f"{first}:2377")
    return cluster, etcds


def test_an_etcd_of_one_member_is_enough_and_its_absence_is_told(lone):
    cluster, etcds = lone
    cluster.create("idle", "--replicas", "0")
    cluster.wait_until(
        lambda: [m["Reachable"] for m in store(cluster, "h2")["Members"]] == [True], "the etcd answers"
    )
    etcds.stop("h1")
    for host in cluster.hosts:
        cluster.wait_until(
            lambda host=host: "does not have a leader" in cluster.run(host, "swarm", "node", "ls").stderr,
            f"{host} knows",
        )
        began = SystemClock().monotonic()
        assert "does not have a leader" in cluster.refused(host, "service", "scale", "-d", "idle=1")
        assert SystemClock().monotonic() - began < 8.0
    etcds.start("h1")
    for host in cluster.hosts:
        cluster.wait_until(lambda host=host: cluster.get("/services", host), f"{host} serves again", 30.0)
    assert len(managers(cluster)) == 2


def test_over_an_etcd_of_one_member_another_manager_takes_over(lone):
    cluster, _ = lone

    def leader(via):
        return next((n["Description"]["Hostname"] for n in cluster.get("/nodes", via) if leads(n)), "")

    old = cluster.wait_until(lambda: leader("h2"), "somebody leads")
    new = next(host for host in cluster.hosts if host != old)
    cluster.output(old, "kill", "-STOP", str(cluster.daemon_pid(old)))
    try:
        cluster.wait_until(lambda: leader(new) == new, f"{new} leads", 15.0)
        cluster.swarm(new, "service", "create", "-d", "--name", "other", "--replicas", "0", "web")
    finally:
        cluster.output(old, "kill", "-CONT", str(cluster.daemon_pid(old)))
    cluster.wait_until(lambda: leader(old) == new, f"{old} follows")
    cluster.swarm(old, "leave", "--force", timeout=25.0)
    assert cluster.get("/info", old)["Swarm"]["LocalNodeState"] == "inactive"


def leads(node):
    return (node.get("ManagerStatus") or {}).get("Leader", False)


def managers(cluster):
    return [n for n in cluster.get("/nodes", "h2") if n.get("ManagerStatus")]
