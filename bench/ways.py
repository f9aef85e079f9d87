"""What it costs to leave the plain way: PROXY protocol by HAProxy, clients on IPv6, an encrypted network.

One nginx on h1, asked from h2: its port is published plainly and with PROXY protocol, and it is on a plain
and an encrypted network. Each way is compared with the plain one, in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import wrk
from bench.cluster import Cluster
from bench.report import Figure

PLAIN, TOLD = 8091, 8092
NETWORKS = {"ways": (), "ways-sealed": ("--opt", "encrypted")}
_FILE = "/usr/sbin/nginx"
"""The largest file in the image: a megabyte."""
_CONF = f"""daemon off;
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000;
    sendfile on;
    server {{
        listen 80 backlog=4096;
        listen 81 proxy_protocol backlog=4096;
        location / {{ return 200 "$hostname\\n"; }}
        location /file {{ alias {_FILE}; }}
    }}
}}
"""


def measure(cluster: Cluster, *, quick: bool) -> Iterator[Figure]:
    rounds = 1 if quick else 3
    for name, options in NETWORKS.items():
        cluster.run("h1", "swarm", "network", "create", "-d", "overlay", *options, name)
    on_both = [word for name in NETWORKS for word in ("--network", name)]
    _create_shop(cluster, on_both)
    cluster.create("ask", *on_both, "--constraint", "node.hostname==h2", "busybox", "sleep", "9999")
    cluster.wait_running("shop", 1)
    cluster.wait_running("ask", 1)
    yield from _published(cluster, rounds)
    yield from _overlays(cluster, rounds)
    cluster.run("h1", "swarm", "service", "rm", "shop")
    cluster.remove("ask", "h1", "h2")
    cluster.run("h1", "swarm", "config", "rm", "ways")
    for name in NETWORKS:
        cluster.run("h1", "swarm", "network", "rm", name)


def _create_shop(cluster: Cluster, networks: Sequence[str]) -> None:
    with TemporaryDirectory(prefix="swarm-bench-") as directory:
        conf = Path(directory) / "conf"
        conf.write_text(_CONF)
        cluster.run("h1", "swarm", "config", "create", "ways", str(conf))
    told = f"published={TOLD},target=81,proxy-protocol=v2"
    here = ("--constraint", "node.hostname==h1", "--config", "source=ways,target=/etc/nginx/nginx.conf")
    cluster.create("shop", *here, *networks, "-p", f"{PLAIN}:80", "-p", told, "nginx")


def _published(cluster: Cluster, rounds: int) -> Iterator[Figure]:
    ipv4, ipv6 = cluster.lab.address("h1"), f"[{cluster.lab.ipv6_address('h1')}]"
    plain = f"{ipv4}:{PLAIN}"
    for name, way in (
        ("with PROXY protocol", f"{ipv4}:{TOLD}"),
        ("by IPv6", f"{ipv6}:{PLAIN}"),
        ("with PROXY protocol by IPv6", f"{ipv6}:{TOLD}"),
    ):
        yield from _compare(
            f"a published port {name}",
            rounds,
            lambda path, more, way=way: wrk.ask(cluster, "h2", way + path, more=more),
            lambda path, more: wrk.ask(cluster, "h2", plain + path, more=more),
        )


def _overlays(cluster: Cluster, rounds: int) -> Iterator[Figure]:
    inside = ("nsenter", f"--net=/run/swarm/netns/{cluster.task('ask')['ID']}")
    plain, sealed = (_address_on(cluster, name) for name in NETWORKS)
    yield from _compare(
        "an encrypted network",
        rounds,
        lambda path, more: wrk.ask(cluster, "h2", sealed + path, inside=inside, more=more),
        lambda path, more: wrk.ask(cluster, "h2", plain + path, inside=inside, more=more),
    )


_Ask = Callable[[str, Sequence[str]], wrk.Load]


def _compare(name: str, rounds: int, way: _Ask, plain: _Ask) -> Iterator[Figure]:
    for what, unit, path, more in (
        ("requests", "/s", "/", ()),
        ("new connections", "/s", "/", wrk.CLOSE),
        ("bytes", "MB/s", "/file", ()),
    ):
        through: list[float] = []
        direct: list[float] = []
        for _ in range(rounds):
            for ask, found in ((plain, direct), (way, through)):
                load = ask(path, more)
                found.append(load.megabytes if unit == "MB/s" else load.requests)
        yield Figure(name=f"{what} through {name}", measured=median(through), unit=unit, peer=median(direct))


def _address_on(cluster: Cluster, name: str) -> str:
    return next(
        str(attachment["Addresses"][0]).partition("/")[0]
        for attachment in cluster.task("shop")["NetworksAttachments"]
        if attachment["Network"]["Spec"]["Name"] == name
    )
