"""I11: which secrets lie open on a host: on its disk, in its logs, in what its processes were started with.

In: a cluster, and what is secret. Out: the places, one sentence each. Invariant: the secrets themselves go to
the host's search as a file on a tmpfs, so that looking does not put them where it looks.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from swarm.base.errors import SwarmError
from swarm.lab.host import log_path
from tests.integration.cluster import Cluster

NEEDLES = "/run/needles"
# The file of needles, this search and its words are left out; so is what etcd reads itself, on a tmpfs.
_SEARCH = rf"""
grep -rlaF -f {NEEDLES} /var/lib/swarm 2>/dev/null
grep -rlaF -f {NEEDLES} /run/swarm 2>/dev/null | grep -v "^/run/swarm/manager/"
for process in /proc/[0-9]*; do
    for words in cmdline environ; do
        grep -qaF -f {NEEDLES} $process/$words 2>/dev/null && echo "$process/$words"
    done
done
rm {NEEDLES}
"""
PRIVATE_KEY = "PRIVATE KEY-----"


def secrets_of(cluster: Cluster) -> dict[str, str]:
    """What the cluster itself must keep: the secret part of its tokens, its unlock key, any private key."""
    found = {"a private key": PRIVATE_KEY}
    for role, token in cluster.get("/swarm")["JoinTokens"].items():
        found[f"the {role}'s token"] = token.rsplit("-", 1)[1]
    try:
        key = cluster.get("/swarm/unlockkey")["UnlockKey"]
    except SwarmError:
        key = ""
    if key:
        found["the unlock key"] = key.removeprefix("SWMKEY-1-")
    return found


def check(cluster: Cluster, hidden: Mapping[str, str]) -> list[str]:
    """On every host that is on."""
    broken = []
    for status in cluster.lab.ls():
        if status.state != "running":
            continue
        for name, text in hidden.items():
            places = search(cluster, status.name, [text])
            if text.encode() in log_path(cluster.lab.name, status.name).read_bytes():
                places.append("swarmd's log")
            broken += [f"I11: {name} lies open on {status.name}: {place}" for place in places]
    return broken


def search(cluster: Cluster, host: str, needles: Sequence[str]) -> list[str]:
    done = cluster.lab.exec(host, ["tee", NEEDLES], feed="\n".join(needles) + "\n")
    assert done.returncode == 0, done.stderr
    return cluster.run(host, "sh", "-c", _SEARCH).stdout.splitlines()


def planted(cluster: Cluster, host: str) -> list[str]:
    """A secret that is laid open on purpose, in a file and in a process: both must be found."""
    needle = secrets.token_hex(16)
    file, name = "/var/lib/swarm/planted", "PLANTED"
    cluster.output(host, "sh", "-c", f"echo {needle} > {file}")
    script = f"sleep 300 & echo $! > /run/planted; {name}={needle} sleep 300 & echo $! >> /run/planted"
    cluster.output(host, "sh", "-c", f"({script}) >/dev/null 2>&1")
    try:
        return search(cluster, host, [needle])
    finally:
        cluster.run(host, "sh", "-c", f"kill $(cat /run/planted); rm {file} /run/planted")
