"""An encrypted network as its user meets it: on a cluster's hosts, from the command to the wire."""

from __future__ import annotations

import json

import pytest

from tests.integration.cluster import Cluster, Json, service
from tests.integration.test_networks import FAST, address_on, asks, network

pytestmark = pytest.mark.root


def tunnel_keys(cluster: Cluster, host: str) -> str:
    listed = cluster.run(host, "nsenter", "--net=/run/swarm/wireguard/wg", "wg", "show", "all", "public-key")
    return listed.stdout


def received_bytes(cluster: Cluster, host: str) -> int:
    """What the host's WireGuard devices have brought in."""
    listed = cluster.run(host, "nsenter", "--net=/run/swarm/wireguard/wg", "ip", "-s", "-j", "link").stdout
    return sum(link["stats64"]["rx"]["bytes"] for link in json.loads(listed) if link["ifname"] != "lo")


def test_tasks_on_different_hosts_talk_through_wireguard(cluster: Cluster) -> None:
    options = ("--mode", "global", "--network", "secret", *FAST)
    with network(cluster, "secret", "--opt", "encrypted"), service(cluster, "web", *options):
        tasks: list[Json] = cluster.wait_until(
            lambda: found if len(found := cluster.running("web")) == 3 else [], "web runs on three hosts", 40
        )
        nodes = cluster.node_names()
        on_h1 = next(task for task in tasks if nodes[task["NodeID"]] == "h1")
        others = [task for task in tasks if task is not on_h1]
        for other in others:
            address = address_on(other, "secret")
            heard = cluster.wait_until(lambda to=address: asks(cluster, on_h1, to), f"{address} answers", 20)
            assert heard == other["ID"][:12]
        before = received_bytes(cluster, "h1")
        for _ in range(20):
            asks(cluster, on_h1, address_on(others[0], "secret"))
        assert received_bytes(cluster, "h1") > before

        # A swarmd that comes back holds the keys that the others know.
        keys = tunnel_keys(cluster, "h2")
        cluster.kill_daemon("h2")
        cluster.wait_daemon("h2")
        cluster.wait_until(lambda: len(cluster.running("web")) == 3, "h2 is back", 30)
        assert tunnel_keys(cluster, "h2") == keys
        to_h2 = address_on(next(t for t in others if nodes[t["NodeID"]] == "h2"), "secret")
        cluster.wait_until(lambda: asks(cluster, on_h1, to_h2), "h2's task answers", 10)
