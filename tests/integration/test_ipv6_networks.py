"""Networks with IPv6 on lab hosts, by both doors: what is shown, and what a client in a task hears."""

from __future__ import annotations

import json
import shutil
from ipaddress import IPv6Address, IPv6Network

import pytest

from tests.integration.cluster import Cluster, Json, service, short
from tests.integration.test_discovery import ask
from tests.integration.test_networks import FAST, asks, network

pytestmark = [
    pytest.mark.root,
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the docker program is not installed"),
]
STACK = """
services:
  web:
    image: web
    networks: [front]
    deploy: {replicas: 2}
networks:
  front:
    enable_ipv6: true
    ipam: {config: [{subnet: "fd00:88::/64"}]}
"""


def ipv6_of(task: Json, name: str) -> str:
    (attachment,) = [a for a in task["NetworksAttachments"] if a["Network"]["Spec"]["Name"] == name]
    _, address = attachment["Addresses"]
    return address.partition("/")[0]


def everybody_answers(cluster: Cluster, asker: Json, tasks: list[Json], name: str) -> None:
    """At their own IPv6 addresses; a program may still be about to listen."""
    for task in tasks:
        address, own = ipv6_of(task, name), task["ID"][:12]
        cluster.wait_until(lambda a=address, o=own: asks(cluster, asker, f"[{a}]") == o, f"{own} answers", 10)


@pytest.mark.parametrize("option", [(), ("--opt", "encrypted")], ids=["plain", "encrypted"])
def test_tasks_on_different_hosts_talk_over_ipv6(cluster: Cluster, option: tuple[str, ...]) -> None:
    with (
        network(cluster, "six", "--ipv6", *option),
        service(cluster, "web", "--mode", "global", "--network", "six", *FAST),
    ):
        tasks = cluster.wait_running("web", 3, 40)
        subnet = next(
            found["Subnet"]
            for found in cluster.get("/networks/six")["IPAM"]["Config"]
            if ":" in found["Subnet"]
        )
        assert all(IPv6Address(ipv6_of(task, "six")) in IPv6Network(subnet) for task in tasks)
        everybody_answers(cluster, tasks[0], tasks, "six")
        virtual = [v["Addr"] for v in cluster.get("/services/web")["Endpoint"]["VirtualIPs"]]
        assert [":" in address for address in virtual] == [False, True]
        address = virtual[1].partition("/")[0]
        for task in tasks:
            expected = ("NOERROR", [address])
            cluster.wait_until(lambda t=task, e=expected: ask(cluster, t, "web", "AAAA") == e, "web", 10)
            assert {asks(cluster, task, f"[{address}]") for _ in range(3)} == short(tasks)
            assert ask(cluster, task, "tasks.web", "AAAA") == (
                "NOERROR",
                sorted(ipv6_of(each, "six") for each in tasks),
            )


def test_by_docker_client(cluster: Cluster) -> None:
    made = cluster.docker(
        "h1", "network", "create", "-d", "overlay", "--ipv6", "--subnet", "10.68.0.0/24",
        "--subnet", "fd00:68::/64", "--gateway", "fd00:68::fe", "six",
    ).strip()  # fmt: skip
    with service(cluster, "web", "--replicas", "2", "--network", "six", *FAST):
        tasks = cluster.wait_running("web", 2, 40)
        (shown,) = json.loads(cluster.docker("h1", "network", "inspect", "six"))
        assert (shown["Id"], shown["EnableIPv6"]) == (made, True)
        assert [(c["Subnet"], c["Gateway"]) for c in shown["IPAM"]["Config"]] == [
            ("10.68.0.0/24", "10.68.0.1"),
            ("fd00:68::/64", "fd00:68::fe"),
        ]
        assert {ipv6_of(task, "six") for task in tasks} == {"fd00:68::a44:3", "fd00:68::a44:4"}
        (one,) = [t for t in tasks if ipv6_of(t, "six") == "fd00:68::a44:3"]
        host = cluster.node_names()[one["NodeID"]]
        by_node = cluster.get("/networks/six", host if host == "h1" else "h1")["Containers"]
        assert all(found["IPv6Address"].startswith("fd00:68::a44:") for found in by_node.values())
        everybody_answers(cluster, one, tasks, "six")
        assert "fd00:68::a44:3" in cluster.swarm("h1", "service", "exec", one["ID"], "cat", "/etc/hosts"), (
            "a task knows its own name"
        )
    assert cluster.docker("h1", "network", "rm", "six") == "six\n"


def test_in_a_stack(cluster: Cluster) -> None:
    """By our own command: Docker's refuses the key."""
    folder = cluster.output("h1", "mktemp", "-d").strip()
    cluster.output("h1", "sh", "-c", f"cat > {folder}/six.yml <<'END'\n{STACK}\nEND")
    cluster.swarm("h1", "stack", "deploy", "--detach", "-c", f"{folder}/six.yml", "six", timeout=60)
    tasks = cluster.wait_running("six_web", 2, 40)
    everybody_answers(cluster, tasks[0], tasks, "six_front")
    again = cluster.swarm("h1", "stack", "deploy", "--dry-run", "-c", f"{folder}/six.yml", "six")
    assert "changed" not in again.replace("unchanged", ""), again
    cluster.swarm("h1", "stack", "rm", "six", timeout=60)
    cluster.output("h1", "rm", "-r", folder)
