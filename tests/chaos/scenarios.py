"""What users do with a cluster while a point is armed: each scenario begins and ends with the same cluster.

In: a cluster of the manager h1 and the worker h2, with h3 in none; for `locking` and `unlocking` of three
managers. Out: nothing, or AssertionError with what is not as it should be. Invariant: nobody does anything
but ask again, as a user would whose connection broke; an answer counts only when the cluster shows it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from tests.chaos import chaos_lab, invariants
from tests.chaos.points import MANAGER, NEWCOMER, WORKER
from tests.integration.cluster import Cluster
from tests.integration.test_networks import address_on, asks

CLOCK = SystemClock()
INSIST_S = 60.0
ASK_AGAIN_S = 0.3
PASSPHRASE = "/run/passphrase"
PAD_BYTES = 120_000
FULL_WRITES = 400
"""More than fill the store of a lab with a small quota."""

T = TypeVar("T")
Scenario = Callable[[Cluster, Path], None]


def insist(
    cluster: Cluster, host: str, arguments: Iterable[str], done: Callable[[], object], feed: str = ""
) -> None:
    """Ask until it is done; what the command says meanwhile is kept for the complaint."""
    command = ("swarm", *arguments)
    deadline = CLOCK.monotonic() + INSIST_S
    while True:
        answer = cluster.lab.exec(host, command, timeout=INSIST_S, feed=feed)
        said = answer.stderr.strip() or answer.stdout.strip()
        assert "Traceback" not in said, f"{' '.join(command)}: {said}"
        seen = ""
        for _ in range(10):
            try:
                if done():
                    return
            except (SwarmError, OSError) as error:
                seen = str(error)
            time.sleep(ASK_AGAIN_S)
        assert CLOCK.monotonic() < deadline, (
            f"not within {INSIST_S:g} s: {' '.join(command)} on {host}: {said}; {seen}"
        )


def ask(cluster: Cluster, look: Callable[[Cluster], T]) -> T:
    """What `look` finds, asked for until somebody answers."""
    (found,) = cluster.wait_until(lambda: (look(cluster),), "an answer", INSIST_S)
    return found


def found_pair(cluster: Cluster, archive: Path) -> None:
    """A cluster of the manager and the worker."""
    cluster.load(archive)
    address = cluster.lab.address(MANAGER)
    insist(cluster, MANAGER, ("init", "--advertise-addr", address), lambda: is_in(cluster, MANAGER))
    _join(cluster, WORKER, "worker")


# --- work ------------------------------------------------------------------------------------------------


def services(cluster: Cluster, archive: Path) -> None:
    """An image that goes and comes, a task that ends, a service that is made, scaled and removed."""

    def loaded() -> bool:
        return any("web:latest" in (i["RepoTags"] or ()) for i in cluster.get("/images/json", WORKER))

    def ended() -> bool:
        return any(t["Status"]["State"] == "complete" for t in cluster.tasks("once"))

    insist(cluster, WORKER, ("image", "rm", "web"), lambda: not loaded())
    insist(cluster, WORKER, ("image", "load", "-i", str(archive)), loaded)
    once = ("service", "create", "-d", "--name", "once", "--restart-condition", "none")
    here = ("--constraint", f"node.hostname=={WORKER}", "web", "true")
    insist(cluster, MANAGER, (*once, *here), lambda: cluster.get("/services/once", MANAGER))
    cluster.wait_until(ended, "the task has ended", INSIST_S)
    insist(cluster, MANAGER, ("service", "rm", "once"), lambda: not cluster.get("/services", MANAGER))
    create = ("service", "create", "-d", "--name", "s", "--replicas", "3", "--stop-grace-period", "1s")
    insist(cluster, MANAGER, (*create, "-p", "8080:80", "web"), lambda: _replicas(cluster) == 3)
    for count in (3, 5, 2):
        scale = ("service", "scale", "-d", f"s={count}")
        insist(cluster, MANAGER, scale, lambda count=count: _replicas(cluster) == count)
        cluster.wait_running("s", count, INSIST_S)
        broken = invariants.check_containers(chaos_lab.running_containers(cluster))
        broken += invariants.check_addresses(ask(cluster, lambda c: c.get("/tasks", MANAGER)))
        assert not broken, broken
    insist(cluster, MANAGER, ("service", "rm", "s"), lambda: _replicas(cluster) is None)


def networks(cluster: Cluster, archive: Path) -> None:
    """A network of each kind, a service on both that is published in two ways; then all of it goes."""
    kinds = {"plain": (), "sealed": ("--opt", "encrypted")}

    def listed() -> set[str]:
        return {network["Name"] for network in cluster.get("/networks", MANAGER)}

    for name, more in kinds.items():
        create = ("network", "create", *more, name)
        insist(cluster, MANAGER, create, lambda name=name: name in listed())
    ports = ("-p", "8080:80", "-p", "published=8081,target=80,proxy-protocol=v2")
    on_both = (word for name in kinds for word in ("--network", name))
    create = ("service", "create", "-d", "--name", "n", "--mode", "global", "--stop-grace-period", "1s")
    insist(cluster, MANAGER, (*create, *ports, *on_both, "web"), lambda: cluster.get("/services/n", MANAGER))
    tasks = cluster.wait_running("n", 2, INSIST_S)
    for asker, other in (tasks, reversed(tasks)):
        for name in kinds:
            where, short = address_on(other, name), other["ID"][:12]
            meets = partial(asks, cluster, asker, where)
            cluster.wait_until(
                lambda meets=meets, short=short: meets() == short, f"{where} answers", INSIST_S
            )
    insist(cluster, MANAGER, ("service", "rm", "n"), lambda: not cluster.get("/services", MANAGER))
    for name in kinds:
        insist(cluster, MANAGER, ("network", "rm", name), lambda name=name: name not in listed())


# --- membership ------------------------------------------------------------------------------------------


def membership(cluster: Cluster, archive: Path) -> None:
    _join(cluster, NEWCOMER, "worker")
    insist(cluster, MANAGER, ("node", "promote", NEWCOMER), lambda: _is_manager(cluster, NEWCOMER))
    insist(cluster, MANAGER, ("node", "demote", NEWCOMER), lambda: _is_worker(cluster, NEWCOMER))
    _leave(cluster)
    _join_manager(cluster)
    _leave(cluster)


def handover(cluster: Cluster, archive: Path) -> None:
    """The leader is demoted and promoted again by another manager."""
    _join_manager(cluster)
    insist(cluster, NEWCOMER, ("node", "demote", MANAGER), lambda: _is_worker(cluster, MANAGER, via=NEWCOMER))
    insist(
        cluster, NEWCOMER, ("node", "promote", MANAGER), lambda: _is_manager(cluster, MANAGER, via=NEWCOMER)
    )
    cluster.wait_until(lambda: _is_manager(cluster, NEWCOMER), "both are managers", INSIST_S)
    _leave(cluster)


def founding(cluster: Cluster, archive: Path) -> None:
    """The newcomer founds a swarm, leaves it, restores the others' one from a backup, and leaves that."""
    address = cluster.lab.address(NEWCOMER)
    advertise = ("--advertise-addr", address)
    insist(cluster, NEWCOMER, ("init", *advertise), lambda: _founded(cluster))
    insist(cluster, NEWCOMER, ("leave", "--force"), lambda: _state(cluster, NEWCOMER) == "inactive")
    saved = _backup(cluster)
    restore = ("system", "restore", "--passphrase-file", PASSPHRASE, *advertise, str(saved))
    cluster.output(NEWCOMER, "sh", "-c", f"echo 'correct horse' > {PASSPHRASE}")
    insist(cluster, NEWCOMER, restore, lambda: _founded(cluster))
    assert ask(cluster, lambda c: _swarm_id(c, NEWCOMER)) == ask(cluster, _swarm_id)
    insist(cluster, NEWCOMER, ("leave", "--force"), lambda: _state(cluster, NEWCOMER) == "inactive")
    saved.unlink()


# --- secrets ---------------------------------------------------------------------------------------------


def secrets_change(cluster: Cluster, archive: Path) -> None:
    """A backup, another root, data key and token; nodes come through it."""
    _backup(cluster).unlink()
    root = ask(cluster, _root)
    insist(cluster, MANAGER, ("ca", "--rotate", "-d", "-q"), lambda: _root(cluster) != root)
    cluster.wait_until(lambda: _rotated(cluster), "every node has the new root's certificate", INSIST_S)
    rotate_data_key(cluster)
    token = cluster.wait_until(lambda: _token(cluster), "the worker's join token", INSIST_S)
    insist(cluster, MANAGER, ("join-token", "--rotate", "worker"), lambda: _token(cluster) not in ("", token))
    cluster.wait_until(lambda: is_in(cluster, WORKER), "the worker is ready", INSIST_S)


def rotate_data_key(cluster: Cluster) -> None:
    """Until everything is sealed with another key."""
    before = ask(cluster, lambda found: found.get("/system/datakey")["Key"])

    def has_moved() -> bool:
        found = cluster.get("/system/datakey")
        return bool(found["Key"] != before and found["State"] == "none")

    insist(cluster, MANAGER, ("system", "rotate-data-key", "-d"), has_moved)


def lock(cluster: Cluster) -> str:
    """Turn autolock on, on every manager; the key."""
    insist(cluster, MANAGER, ("update", "--autolock=true"), lambda: _key(cluster))
    wait_locks(cluster, "closed")
    return ask(cluster, _key)


def locking(cluster: Cluster, archive: Path) -> None:
    """Three managers are locked, get another key, are opened; any may die. Then a new data key."""
    keys = [lock(cluster)]
    _unlock(cluster, WORKER, keys)

    def is_rotated() -> bool:
        _unlock(cluster, MANAGER, keys)
        return _key(cluster) not in keys

    insist(cluster, MANAGER, ("unlock-key", "--rotate", "-q"), is_rotated)
    keys.append(ask(cluster, _key))
    _unlock(cluster, MANAGER, keys)
    # It may have died before it heard of the new key or after: one of the two opens it, no third is needed.
    _unlock(cluster, WORKER, keys)
    cluster.wait_until(lambda: _key(cluster, WORKER) == keys[-1], "it has the new key", INSIST_S)
    insist(cluster, MANAGER, ("update", "--autolock=false"), lambda: not _key(cluster))
    _unlock(cluster, WORKER, keys)
    wait_locks(cluster, "open")
    chaos_lab.wait_settled(cluster, len(cluster.hosts))
    rotate_data_key(cluster)


def unlocking(cluster: Cluster, archive: Path) -> None:
    """The second manager is locked; it is opened, twice if it dies meanwhile."""
    _unlock(cluster, WORKER, [ask(cluster, _key)])
    insist(cluster, MANAGER, ("update", "--autolock=false"), lambda: not _key(cluster))
    wait_locks(cluster, "open")
    chaos_lab.wait_settled(cluster, len(cluster.hosts))


def wait_locks(cluster: Cluster, word: str) -> None:
    """Until every manager's lock is so on its disk."""

    def all_so() -> bool:
        heads = [
            cluster.run(h, "busybox", "head", "-n", "1", "/var/lib/swarm/node/lock") for h in cluster.hosts
        ]
        return all(head.stdout.startswith(f"swarm lock 1 {word}") for head in heads)

    cluster.wait_until(all_so, f"the locks are {word}", INSIST_S)


def _unlock(cluster: Cluster, host: str, keys: list[str]) -> None:
    """Try the keys until the host serves."""

    def serves() -> bool:
        for key in reversed(keys):
            if _state(cluster, host) == "locked":
                cluster.lab.exec(host, ("swarm", "unlock"), timeout=INSIST_S, feed=f"{key}\n")
        return _state(cluster, host) == "active" and bool(cluster.get("/nodes", host))

    cluster.wait_until(serves, f"{host} is unlocked and serves", INSIST_S)


# --- the store -------------------------------------------------------------------------------------------


def upkeep(cluster: Cluster, archive: Path) -> None:
    """The store's quota is used up by history; it comes back by itself, with what was acknowledged."""
    create = ("service", "create", "-d", "--name", "pad", "--replicas", "0", "web")
    insist(cluster, MANAGER, create, lambda: cluster.get("/services/pad", MANAGER))
    acked = ""
    for turn in range(FULL_WRITES):
        try:
            _pad(cluster, text := f"{turn}-{secrets.token_hex(PAD_BYTES // 2)}")
        except SwarmError:
            break
        acked = text

    def label() -> str:
        found: str = cluster.get("/services/pad", MANAGER)["Spec"]["Labels"].get("pad", "")
        return found

    cluster.wait_until(lambda: label() in (acked, text), "the last acknowledged write is there", INSIST_S)

    def writes() -> bool:
        _pad(cluster, "done")
        return True

    cluster.wait_until(writes, "writes succeed again", INSIST_S)
    cluster.wait_until(lambda: label() == "done", "the write is there", INSIST_S)
    insist(cluster, MANAGER, ("service", "rm", "pad"), lambda: not cluster.get("/services", MANAGER))


def _pad(cluster: Cluster, text: str) -> None:
    with cluster.client(MANAGER) as client:
        found = client.get("/services/pad")
        spec = {**found["Spec"], "Labels": {"pad": text}}
        client.post(f"/services/{found['ID']}/update", spec, version=found["Version"]["Index"])


def recovery(cluster: Cluster, archive: Path) -> None:
    """The manager goes on from its own data in a new store."""
    swarm_id = ask(cluster, _swarm_id)
    command = ("init", "--force-new-cluster", "--advertise-addr", cluster.lab.address(MANAGER))
    insist(cluster, MANAGER, command, lambda: is_in(cluster, MANAGER))
    cluster.wait_until(lambda: is_in(cluster, WORKER), "the worker is back", INSIST_S)
    assert ask(cluster, _swarm_id) == swarm_id


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "services": services,
        "networks": networks,
        "membership": membership,
        "handover": handover,
        "founding": founding,
        "secrets": secrets_change,
        "locking": locking,
        "unlocking": unlocking,
        "upkeep": upkeep,
        "recovery": recovery,
    }
)


# --- steps and looks -------------------------------------------------------------------------------------


def _join(cluster: Cluster, host: str, role: str) -> None:
    secret = cluster.wait_until(lambda: _token(cluster, role), f"the {role}'s join token", INSIST_S)
    address = f"{cluster.lab.address(MANAGER)}:2377"
    insist(cluster, host, ("join", "--token", secret, address), lambda: is_in(cluster, host))


def _join_manager(cluster: Cluster) -> None:
    _join(cluster, NEWCOMER, "manager")
    cluster.wait_until(lambda: _is_manager(cluster, NEWCOMER), "the newcomer is a manager", INSIST_S)


def _leave(cluster: Cluster) -> None:
    insist(cluster, NEWCOMER, ("leave", "--force"), lambda: _state(cluster, NEWCOMER) == "inactive")
    insist(
        cluster, MANAGER, ("node", "rm", "--force", NEWCOMER), lambda: not _node(cluster, NEWCOMER, MANAGER)
    )


def _backup(cluster: Cluster) -> Path:
    """Taken by the manager; whole as soon as it is there."""
    path = Path(f"/tmp/{cluster.lab.name}.backup")
    cluster.output(MANAGER, "sh", "-c", f"echo 'correct horse' > {PASSPHRASE}")
    path.unlink(missing_ok=True)
    insist(cluster, MANAGER, ("system", "backup", "--passphrase-file", PASSPHRASE, str(path)), path.exists)
    return path


def _founded(cluster: Cluster) -> bool:
    """The newcomer serves a swarm of its own."""
    active = _state(cluster, NEWCOMER) == "active"
    return active and any(n["Status"]["State"] == "ready" for n in cluster.get("/nodes", NEWCOMER))


def _swarm_id(cluster: Cluster, host: str = MANAGER) -> str:
    found: str = cluster.get("/swarm", host)["ID"]
    return found


def _root(cluster: Cluster) -> str:
    found: str = cluster.get("/swarm", MANAGER)["TLSInfo"]["TrustRoot"]
    return found


def _rotated(cluster: Cluster) -> bool:
    swarm = cluster.get("/swarm", MANAGER)
    nodes = cluster.get("/nodes", MANAGER)
    return not swarm["RootRotationInProgress"] and all(
        n["Description"]["TLSInfo"]["CertIssuerPublicKey"] == swarm["TLSInfo"]["CertIssuerPublicKey"]
        for n in nodes
    )


def _token(cluster: Cluster, role: str = "worker") -> str:
    return cluster.run(MANAGER, "swarm", "join-token", "-q", role).stdout.strip()


def _key(cluster: Cluster, host: str = MANAGER) -> str:
    """The unlock key, empty without one. Raises: SwarmError while the manager cannot tell."""
    found: str = cluster.get("/swarm/unlockkey", host)["UnlockKey"]
    return found


def _replicas(cluster: Cluster) -> int | None:
    found = [s for s in cluster.get("/services", MANAGER) if s["Spec"]["Name"] == "s"]
    return found[0]["Spec"]["Mode"]["Replicated"]["Replicas"] if found else None


def _node(cluster: Cluster, host: str, via: str) -> dict | None:
    found = [n for n in cluster.get("/nodes", via) if n["Description"]["Hostname"] == host]
    return found[0] if found else None


def _is_manager(cluster: Cluster, host: str, via: str = MANAGER) -> bool:
    """As both managers see it."""
    node = _node(cluster, host, via)
    reachable = node is not None and (node.get("ManagerStatus") or {}).get("Reachability") == "reachable"
    return reachable and len(cluster.get("/nodes", host)) == len(cluster.hosts)


def _is_worker(cluster: Cluster, host: str, via: str = MANAGER) -> bool:
    node = _node(cluster, host, via)
    is_told = not cluster.get("/info", host)["Swarm"]["ControlAvailable"]
    return node is not None and node["Spec"]["Role"] == "worker" and "ManagerStatus" not in node and is_told


def is_in(cluster: Cluster, host: str) -> bool:
    return _state(cluster, host) == "active" and any(
        n["Description"]["Hostname"] == host and n["Status"]["State"] == "ready"
        for n in cluster.get("/nodes", MANAGER)
    )


def _state(cluster: Cluster, host: str) -> str:
    found: str = cluster.get("/info", host)["Swarm"]["LocalNodeState"]
    return found
