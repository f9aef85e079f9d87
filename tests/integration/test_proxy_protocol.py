"""Published ports with PROXY protocol on hosts that are network namespaces, proved by traffic.

The tasks are nginx, which takes connections with a PROXY header only and answers what the header says.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.base.clock import SystemClock
from swarm.lab import demo_image
from tests.integration.cluster import Probe, http_get
from tests.integration.overlay_site import (
    IPV6_UNDERLAY,
    OUTSIDE,
    PORT,
    TIMEOUT,
    Host,
    Site,
    Task,
    fetch,
    port,
    run,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]
_NGINX = """daemon off;
user root;
worker_processes 1;
pid {home}/nginx.pid;
error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type text/plain;
    server {{
        listen 80 proxy_protocol;
        location / {{ return 200 "{address}/$proxy_protocol_addr/$proxy_protocol_server_port\\n"; }}
    }}
}}
"""
CHANGES = 8
# Two requests on one connection; the second when it is told to.
_TWO_REQUESTS = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
for _ in range(2):
    connection.request("GET", "/name")
    print(connection.getresponse().read().decode().strip(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.up()
        yield site
    finally:
        site.down()


@pytest.fixture
def web(site: Site, tmp_path: Path) -> list[Task]:
    """Three tasks: two on h1, one on h2, none on h3; nothing published yet."""
    site.apply([])
    tasks = [site.hosts[0].attach(11), site.hosts[0].attach(12), site.hosts[1].attach(21)]
    for task in tasks:
        home = tmp_path / task.task_id
        home.mkdir()
        (home / "nginx.conf").write_text(_NGINX.format(home=home, address=task.address))
        task.serve("nginx", "-c", str(home / "nginx.conf"))
        task.wait_for("tcp", 80)
    return tasks


def publish(site: Site, *tasks: Task, suspects: tuple[Task, ...] = ()) -> None:
    site.apply([port(*tasks, suspects=suspects) | {"proxy_protocol": True}])


def seen_from(where: object, address: str, times: int = 3) -> tuple[set[str], Counter[str]]:
    """The clients that tasks saw, and who answered how often."""
    answers = [answer.split("/") for answer in fetch(where, address, times).elements()]
    assert {number for *_, number in answers} == {str(PORT)}, answers
    return {client for _, client, _ in answers}, Counter(task for task, *_ in answers)


def list_proxies(host: Host) -> list[int]:
    found = []
    for pid in run("ip", "netns", "pids", host.netns).split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            if Path(f"/proc/{pid}/comm").read_text() == "haproxy\n":
                found.append(int(pid))
    return found


def wait_until(condition: Callable[[], object]) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + TIMEOUT
    while not condition():
        assert clock.monotonic() < deadline
        time.sleep(0.02)


def test_tasks_are_told_their_clients(site: Site, web: list[Task]) -> None:
    publish(site, *web)
    everyone = Counter(task.address for task in web)
    for host in site.hosts:
        assert seen_from(site.outside, host.address) == ({OUTSIDE}, everyone), host.name
        assert seen_from(host.nsenter, "127.0.0.1") == ({"127.0.0.1"}, everyone), host.name
        assert seen_from(host.nsenter, host.address) == ({host.address}, everyone), host.name
    first, _, third = site.hosts
    assert seen_from(web[0].nsenter, first.address) == ({web[0].gateway_address}, everyone)
    assert seen_from(web[0].nsenter, third.address) == ({first.address}, everyone)
    publish(site, web[0], suspects=(web[1], web[2]))
    assert seen_from(site.outside, third.address) == ({OUTSIDE}, Counter({web[0].address: 3}))


def test_clients_on_ipv6_are_told_too(site: Site, web: list[Task]) -> None:
    publish(site, *web)
    everyone = Counter(task.address for task in web)
    for host in site.hosts:
        own = f"[{host.ipv6_address}]"
        assert seen_from(site.outside, own) == ({f"{IPV6_UNDERLAY}200"}, everyone), host.name
        assert seen_from(host.nsenter, "[::1]") == ({"::1"}, everyone), host.name
        assert seen_from(host.nsenter, own) == ({host.ipv6_address}, everyone), host.name
    third = site.hosts[2]
    publish(site, web[2], suspects=(web[0], web[1]))
    assert seen_from(site.outside, f"[{third.ipv6_address}]")[1] == {web[2].address: 3}
    publish(site)
    assert refused(site, third, f"[{third.ipv6_address}]")


def test_changes_lose_nothing(site: Site, web: list[Task]) -> None:
    publish(site, *web)
    third = site.hosts[2]
    outside, end = ["nsenter", f"--net=/run/netns/{site.prefix}hub"], site.directory / "end"
    script = f"until test -e {end}; do curl -s -m 5 http://{third.address}:{PORT}/name || echo -; done"
    old = [*outside, sys.executable, "-c", _TWO_REQUESTS, third.address, str(PORT)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([*outside, "sh", "-c", script], stdout=pipe, text=True) as load,
        subprocess.Popen(old, stdin=pipe, stdout=pipe, text=True, bufsize=1) as kept,
    ):
        first_answer = kept.stdout.readline()
        for left_out in range(CHANGES):
            publish(site, *(task for n, task in enumerate(web) if n != left_out % 3))
        end.touch()
        kept.stdin.write("\n")
        assert kept.stdout.readline() == first_answer != "\n"
        wait_until(lambda: len(list_proxies(third)) == 2)  # who has the connection, and who serves
        kept.communicate("\n", timeout=TIMEOUT)
        answers = load.communicate(timeout=60)[0].split()
    assert len(answers) > CHANGES
    assert all(f"/{OUTSIDE}/" in answer for answer in answers), Counter(answers)
    wait_until(lambda: len(list_proxies(third)) == 1)


def test_it_outlives_swarmd_and_ends(site: Site, web: list[Task]) -> None:
    publish(site, *web)
    first = site.hosts[0]
    (proxy,) = list_proxies(first)
    first.end()
    assert seen_from(site.outside, first.address)[0] == {OUTSIDE}
    first.begin()
    publish(site, *web)
    assert first.ask("verify") == 0
    assert list_proxies(first) == [proxy], "it goes on as it was"
    os.kill(proxy, signal.SIGKILL)
    wait_until(lambda: list_proxies(first) == [])
    assert refused(site, first)
    assert first.ask("verify") > 0
    assert seen_from(site.outside, first.address)[0] == {OUTSIDE}

    publish(site)
    assert refused(site, first)
    wait_until(lambda: list_proxies(first) == [])
    publish(site, *web)
    assert len(list_proxies(first)) == 1
    for task in first.tasks:
        task.stop()
    first.ask("close", remove=True)
    wait_until(lambda: list_proxies(first) == [])
    assert not (first.directory / "proxy").exists()


def test_without_haproxy_it_is_refused(site: Site, web: list[Task], tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("nft", "nsenter"):
        (programs / name).symlink_to(shutil.which(name))
    third = site.hosts[2]
    third.end()
    third.begin(PATH=str(programs))
    publish(site, *web)
    assert refused(site, third)
    assert seen_from(site.outside, site.hosts[0].address)[0] == {OUTSIDE}
    own = f"[{third.ipv6_address}]"
    assert seen_from(site.outside, own)[0] == {f"{IPV6_UNDERLAY}200"}, "which needs no HAProxy"


def refused(site: Site, host: Host, address: str = "") -> bool:
    script = f"curl -s -m 5 -o /dev/null http://{address or host.address}:{PORT}/; echo $?"
    return site.outside("sh", "-c", script).strip() == "7"


def test_services_by_both_doors(cluster, tmp_path):
    archive = tmp_path / "nginx.tar"
    demo_image.build("nginx", archive)
    cluster.load(archive)
    (tmp_path / "conf").write_text(_NGINX.format(home="/run", address="$hostname"))
    cluster.swarm("h1", "config", "create", "nginx", str(tmp_path / "conf"))
    options = ("--replicas", "3", "--config", "source=nginx,target=/etc/nginx/nginx.conf")
    labels = ("--label", "swarm.port.8086.proxy-protocol=v2", "--no-resolve-image")
    one = "published=8085,target=80,proxy-protocol=v2"
    cluster.create("one", "-p", one, *options, image="nginx")
    cluster.docker(
        "h1", "service", "create", "-d", "--name", "two", "-p", "8086:80", *labels, *options, "nginx"
    )
    us = cluster.output("h1", "ip", "route", "show", "default").split()[2]
    for name, number in (("one", 8085), ("two", 8086)):
        tasks = cluster.wait_running(name, 3)
        for host in cluster.hosts:

            def seen(host: str = host, number: int = number, count: int = len(tasks)) -> set[str]:
                return {cluster.url_get(host, number).split("/", 1)[1] for _ in range(count)}

            wanted = {f"{us}/{number}"}
            cluster.wait_until(lambda seen=seen, wanted=wanted: seen() == wanted, f"all on {host}:{number}")
        assert cluster.local_get("h2", number).endswith(f"/127.0.0.1/{number}")
        for host in cluster.hosts:
            own = cluster.lab.ipv6_address(host)
            seen = http_get(own, number, "/", 5).strip().split("/", 1)[1]
            client, _, asked = seen.rpartition("/")
            assert asked == str(number)
            assert ipaddress.IPv6Address(client) in ipaddress.IPv6Network(f"{own}/64", strict=False)
            assert client != own, "it is us who asked"

    with Probe(cluster.lab.address("h3"), 8085) as probe:
        cluster.swarm("h1", "service", "update", "--force", "--update-parallelism", "1", "one", timeout=60)
    assert (probe.failures, probe.refused) == ([], 0)
    assert {answer.split("/", 1)[1] for answer in probe.answers} == {f"{us}/8085"}

    message = cluster.refused(
        "h1", "service", "update", "--label-add", "swarm.port.8085.source=preserve", "one"
    )
    assert message.endswith("does not go with source=preserve")
    cluster.swarm("h1", "service", "rm", "one", "two")
    cluster.swarm("h1", "config", "rm", "nginx")
    cluster.wait_clean()
