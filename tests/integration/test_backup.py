"""A backup taken while the swarm goes on, and the swarm started again from it on a host of its own."""

from __future__ import annotations

import pytest

from tests.integration.cluster import Cluster

pytestmark = pytest.mark.root

PASS = "/run/passphrase"


@pytest.fixture(scope="module")
def cluster(lab, web_archive) -> Cluster:
    """h1 and h2 in a swarm, h3 outside; two tasks on h2; a backup in `saved`."""
    made = Cluster(lab(hosts=3))
    made.load(web_archive)
    made.swarm("h1", "init", "--autolock", "--advertise-addr", made.lab.address("h1"))
    token = made.swarm("h1", "join-token", "-q", "worker").strip()
    made.swarm("h2", "join", "--token", token, f"{made.lab.address('h1')}:2377")
    made.create("web", "--replicas", "2", "--constraint", "node.role==worker")
    made.wait_running("web", 2)
    for host in ("h1", "h3"):
        made.output(host, "sh", "-c", f"echo 'correct horse' > {PASS}; echo wrong > {PASS}.wrong")
    return made


@pytest.fixture(scope="module")
def saved(cluster, tmp_path_factory):
    path = tmp_path_factory.mktemp("backup") / "swarm.backup"
    said = cluster.swarm("h1", "system", "backup", "--passphrase-file", PASS, str(path))
    assert said == f"Backup written to {path}: it opens with the passphrase.\n"
    return path


def test_a_backup_is_private_and_tells_nothing(cluster, saved):
    assert saved.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    content = saved.read_bytes()
    assert content.startswith(b"SWARM-BACKUP 1 passphrase\n")
    for text in ("web", "PRIVATE KEY", cluster.swarm("h1", "unlock-key", "-q").strip()[9:]):
        assert text.encode() not in content


def test_without_a_passphrase_the_unlock_key_is_taken(cluster, saved):
    path = saved.with_name("other")
    said = cluster.swarm("h1", "system", "backup", str(path))
    assert said == f"Backup written to {path}: it opens with the swarm's unlock key.\n"
    assert path.read_bytes().startswith(b"SWARM-BACKUP 1 unlock-key\n")
    path.unlink()


def test_a_live_swarm_is_not_restored_over(cluster, saved):
    before = cluster.objects()
    text = cluster.refused("h1", "system", "restore", "--passphrase-file", PASS, str(saved))
    assert "This node is already part of a swarm" in text
    assert cluster.objects() == before


@pytest.mark.parametrize(
    ("damage", "passphrase", "complaint"),
    [
        (lambda content: content[:-1], PASS, "damaged"),
        (lambda content: content[:100], PASS, "damaged"),
        (lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:], PASS, "damaged"),
        (lambda content: b"a tar archive", PASS, "not a backup"),
        (lambda content: content, f"{PASS}.wrong", "does not open with this passphrase"),
    ],
)
def test_what_cannot_be_restored_is_refused_before_any_write(cluster, saved, damage, passphrase, complaint):
    path = saved.with_name("damaged")
    path.write_bytes(damage(saved.read_bytes()))
    before = cluster.output("h3", "find", "/var/lib/swarm", "-printf", "%p %s %T@\n")
    text = cluster.refused("h3", "system", "restore", "--passphrase-file", passphrase, str(path))
    assert complaint in text
    assert cluster.output("h3", "find", "/var/lib/swarm", "-printf", "%p %s %T@\n") == before
    assert cluster.get("/info", "h3")["Swarm"]["LocalNodeState"] == "inactive"
    path.unlink()


def test_a_swarm_goes_on_from_its_backup_on_another_host(cluster, saved):
    swarm, networks = cluster.get("/swarm"), cluster.get("/networks")
    services, nodes = cluster.get("/services"), cluster.get("/nodes")
    key = cluster.swarm("h1", "unlock-key", "-q")
    pids = {t["Status"]["ContainerStatus"]["PID"] for t in cluster.running("web")}
    address = cluster.lab.address("h1")
    cluster.lab.kill("h1")
    take_over(cluster, "h3", address)
    said = cluster.swarm(
        "h3", "system", "restore", "--passphrase-file", PASS, "--advertise-addr", address, str(saved)
    )
    assert said.startswith("Swarm restored: current node (")
    for name in ("ID", "JoinTokens", "TLSInfo", "CreatedAt", "Spec"):
        assert cluster.get("/swarm", "h3")[name] == swarm[name]
    assert cluster.swarm("h3", "unlock-key", "-q") == key
    assert as_written(cluster.get("/services", "h3")) == as_written(services)
    assert as_written(cluster.get("/networks", "h3")) == as_written(networks)
    again = {n["ID"]: n for n in cluster.get("/nodes", "h3")}
    newest = max(o["Version"]["Index"] for o in (*services, *nodes, swarm))
    assert all(n["Version"]["Index"] > newest for n in again.values()), "no version kept from before is valid"
    assert len(again) == len(nodes) + 1
    worker = next(n for n in nodes if n["Spec"]["Role"] == "worker")
    former = next(n for n in nodes if n["Spec"]["Role"] == "manager")

    def settled() -> bool:
        now = {n["ID"]: n["Status"]["State"] for n in cluster.get("/nodes", "h3")}
        return (now[worker["ID"]], now[former["ID"]]) == ("ready", "down")

    cluster.wait_until(settled, "the worker is back, the former manager is down", 40)
    tasks = [t for t in cluster.get("/tasks", "h3") if t["Status"]["State"] == "running"]
    assert {t["Status"]["ContainerStatus"]["PID"] for t in tasks} == pids
    for pid in pids:
        cluster.output("h2", "kill", "-0", str(pid))
    cluster.swarm("h3", "node", "rm", former["ID"])
    cluster.swarm("h3", "service", "scale", "-d", "web=3")

    def scaled() -> bool:
        running = [t for t in cluster.get("/tasks", "h3") if t["Status"]["State"] == "running"]
        return len(running) == 3

    cluster.wait_until(scaled, "the restored swarm places tasks", 20)


def test_a_former_manager_that_returns_becomes_a_worker(lab, web_archive, tmp_path):
    cluster = Cluster(lab(hosts=3))
    cluster.load(web_archive)
    address, path = cluster.lab.address("h1"), tmp_path / "swarm.backup"
    cluster.swarm("h1", "init", "--advertise-addr", address)
    token = cluster.swarm("h1", "join-token", "-q", "manager").strip()
    assert "manager" in cluster.swarm("h2", "join", "--token", token, f"{address}:2377")
    cluster.create("web", "--replicas", "2")
    cluster.wait_running("web", 2)
    cluster.output("h1", "sh", "-c", f"echo 'correct horse' > {PASS}")
    cluster.output("h3", "sh", "-c", f"echo 'correct horse' > {PASS}")
    cluster.swarm("h1", "system", "backup", "--passphrase-file", PASS, str(path))
    cluster.lab.kill("h1")
    cluster.lab.kill("h2")
    take_over(cluster, "h3", address)
    where = ("--advertise-addr", address)
    cluster.swarm("h3", "system", "restore", "--passphrase-file", PASS, *where, str(path))
    cluster.lab.start("h2")

    def is_worker() -> bool:
        return not cluster.get("/info", "h2")["Swarm"]["ControlAvailable"]

    def seen() -> bool:
        nodes = {n["Description"]["Hostname"]: n for n in cluster.get("/nodes", "h3")}
        h2 = nodes["h2"]
        return (h2["Spec"]["Role"], h2["Status"]["State"], "ManagerStatus" in h2) == (
            "worker",
            "ready",
            False,
        )

    cluster.wait_until(seen, "h2 is a worker of the restored swarm", 40.0)
    cluster.wait_until(is_worker, "h2 has given its manager's part up", 20.0)
    gone = cluster.run("h2", "ls", "/var/lib/swarm/etcd", "/var/lib/swarm/manager")
    assert gone.returncode != 0, "and its copy of the old state"
    assert "This node is not a swarm manager" in cluster.refused("h2", "node", "ls")


def as_written(objects):
    """Without versions and times of change, which a new store counts anew, and what is in use just now."""
    fleeting = ("Version", "UpdatedAt", "Usage")
    return [{k: v for k, v in item.items() if k not in fleeting} for item in objects]


def take_over(cluster: Cluster, host: str, address: str) -> None:
    """Give the host another one's address and announce it, as whoever replaces a manager does."""
    cluster.output(host, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
    cluster.output(host, "busybox", "arping", "-U", "-c", "2", "-I", "eth0", address)
