"""Services on an overlay: through the virtual address against straight to the task, names, and changes.

One nginx on h1, two tasks that ask on h2, all on one overlay; wrk runs in the asking tasks' networks. Each
way has a task of its own: a port that both used would be, to the server, one connection's end and another's
beginning.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from statistics import median

from bench import wrk
from bench.cluster import Cluster
from bench.report import Figure

NETWORK = "bench"
REQUESTS_AT_LEAST, CONNECTIONS_AT_LEAST = 0.9, 0.85
ANSWERS_AT_LEAST = 20_000.0
SERVICES, CHANGE_AT_MOST_MS = 500, 100.0


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    rounds = 1 if quick else 8
    cluster.run("h1", "swarm", "network", "create", "-d", "overlay", "--ipv6", NETWORK)
    cluster.create("shop", "--network", NETWORK, "--constraint", "node.hostname==h1", "nginx")
    pair = ("--replicas", "2", "--constraint", "node.hostname==h2")
    cluster.create("ask", "--network", NETWORK, *pair, "busybox", "sleep", "9999")
    cluster.wait_running("shop", 1)
    cluster.wait_running("ask", 2)
    inside, other = (("nsenter", f"--net=/run/swarm/netns/{task['ID']}") for task in cluster.tasks("ask"))
    ipv4, ipv6 = map(_host_of, cluster.task("shop")["NetworksAttachments"][0]["Addresses"])
    virtual_ipv4 = cluster.run("h2", *inside, sys.executable, "-c", _RESOLVE, "shop")
    virtual_ipv6 = _host_of(cluster.service("shop")["Endpoint"]["VirtualIPs"][1]["Addr"])
    for name, more, straight, virtual, at_least in (
        ("requests through a virtual address, to another host", (), ipv4, virtual_ipv4, REQUESTS_AT_LEAST),
        ("requests through a virtual address of IPv6", (), ipv6, virtual_ipv6, REQUESTS_AT_LEAST),
        ("new connections through a virtual address", wrk.CLOSE, ipv4, virtual_ipv4, CONNECTIONS_AT_LEAST),
        ("new connections through one of IPv6", wrk.CLOSE, ipv6, virtual_ipv6, CONNECTIONS_AT_LEAST),
    ):
        direct: list[float] = []
        through: list[float] = []
        for _ in range(rounds):
            direct.append(wrk.ask(cluster, "h2", straight, inside=other, more=more).requests)
            through.append(wrk.ask(cluster, "h2", virtual, inside=inside, more=more).requests)
        yield Figure(name=name, measured=median(through), unit="/s", peer=median(direct), at_least=at_least)
    answers = [
        float(cluster.run("h2", *inside, sys.executable, "-m", "bench.ask_names", "shop", "1"))
        for _ in range(rounds)
    ]
    yield Figure(
        name="answers of a host's name server", measured=median(answers), unit="/s", at_least=ANSWERS_AT_LEAST
    )
    cluster.run("h1", "swarm", "service", "rm", "shop")
    cluster.remove("ask", "h1", "h2")
    cluster.run("h1", "swarm", "network", "rm", NETWORK)
    own = ("unshare", "--net", "--mount", sys.executable, "-m", "bench.many_services")
    took = json.loads(cluster.run("h2", *own, str(SERVICES), "3" if quick else "20"))
    yield Figure(
        name=f"one change among {SERVICES} services, on a host",
        measured=median(took["change"]),
        unit="ms",
        at_most=CHANGE_AT_MOST_MS,
    )
    yield Figure(name="a task attached there, with its names", measured=median(took["attach"]), unit="ms")


def _host_of(address: str) -> str:
    """As URLs have it, of an address with its prefix."""
    bare = address.partition("/")[0]
    return f"[{bare}]" if ":" in bare else bare


# As a program in the task's network would: by the resolver's address, without the container's files.
_RESOLVE = """
import socket, struct, sys
name = sys.argv[1].encode()
query = struct.pack("!HHHHHHB", 1, 256, 1, 0, 0, 0, len(name)) + name + struct.pack("!BHH", 0, 1, 1)
with socket.socket(type=socket.SOCK_DGRAM) as client:
    client.settimeout(5)
    client.sendto(query, ("127.0.0.11", 53))
    print(socket.inet_ntoa(client.recv(512)[-4:]))
"""
