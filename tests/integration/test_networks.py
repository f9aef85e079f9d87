"""Networks of users on lab hosts, by both doors: what tasks reach, and what is left of them at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import docker.types
import pytest

from swarm.api.client import ApiError
from tests.integration.cluster import Cluster, Json, service

pytestmark = pytest.mark.root
needs_docker = [
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the docker program is not installed"),
]
GONE_S = 30.0
FAST = ("--stop-grace-period", "1s", "--detach")


@contextmanager
def network(cluster: Cluster, name: str, *options: str) -> Iterator[str]:
    made = cluster.swarm("h1", "network", "create", *options, name).strip()
    yield made
    assert cluster.swarm("h1", "network", "rm", name) == f"{name}\n"
    cluster.wait_until(lambda: not sandboxes(cluster, made), f"{name} is gone from all hosts", GONE_S)


def sandboxes(cluster: Cluster, network_id: str) -> list[str]:
    """The hosts that have a part of the network."""
    found = cluster.on_all(lambda host: cluster.output(host, "ls", "/run/swarm/netns"))
    return [host for host, names in found.items() if f"ov-{network_id}" in names]


def inside(cluster: Cluster, task: Json, *argv: str) -> tuple[int, str]:
    """A program of the host in the network of a task."""
    host = cluster.node_names()[task["NodeID"]]
    done = cluster.run(host, "nsenter", f"--net=/run/swarm/netns/{task['ID']}", *argv)
    return done.returncode, done.stdout


def asks(cluster: Cluster, task: Json, address: str, port: int = 80) -> str:
    """What the task hears at an address: the name of who answers, or nothing."""
    url = f"http://{address}:{port}/"
    return inside(cluster, task, "timeout", "2", "busybox", "wget", "-q", "-O", "-", url)[1].strip()


def reaches(cluster: Cluster, task: Json, other: Json, name: str) -> None:
    """Its program may still be about to listen."""
    address, short = address_on(other, name), other["ID"][:12]
    cluster.wait_until(lambda: asks(cluster, task, address) == short, f"{address} on {name} answers", 10)


def address_on(task: Json, name: str) -> str:
    (found,) = [
        attachment["Addresses"][0].partition("/")[0]
        for attachment in task["NetworksAttachments"]
        if attachment["Network"]["Spec"]["Name"] == name
    ]
    return found


def waits_for(cluster: Cluster, name: str) -> bool:
    return any("network front has 10.77.0.0/24" in t["Status"].get("Err", "") for t in cluster.tasks(name))


def settled(cluster: Cluster, name: str, spec_networks: int, count: int) -> list[Json]:
    """The tasks, once all of them are on so many networks."""

    def found() -> list[Json]:
        tasks = cluster.running(name)
        is_new = all(len(task["Spec"].get("Networks", ())) == spec_networks for task in tasks)
        return tasks if len(tasks) == count and is_new else []

    return cluster.wait_until(found, f"{count} tasks of {name} on {spec_networks} networks", 40)


def test_tasks_reach_those_on_their_networks_and_no_others(cluster: Cluster) -> None:
    with (
        network(cluster, "front"),
        network(cluster, "back", "--subnet", "10.77.0.0/24", "--subnet", "10.78.0.0/24"),
        service(cluster, "web", "--mode", "global", "--network", "front", *FAST),
        service(
            cluster, "both", "--network", "front", "--network", "name=back,alias=b", "--replicas", "2", *FAST
        ),
        service(cluster, "db", "--replicas", "1", "--network", "back", *FAST),
    ):
        web, both = cluster.wait_running("web", 3, 40), cluster.wait_running("both", 2, 40)
        (db,) = cluster.wait_running("db", 1, 40)
        for asker in web:
            for other in web:
                reaches(cluster, asker, other, "front")
        reaches(cluster, both[0], db, "back")
        reaches(cluster, db, both[1], "back")
        assert asks(cluster, web[0], address_on(db, "back")) == ""
        assert asks(cluster, db, address_on(web[0], "front")) == ""
        assert len(sandboxes(cluster, cluster.get("/networks/back")["Id"])) <= 3
        shown = cluster.get("/networks/front", verbose=True)
        assert shown["Usage"]["Tasks"] == 5
        assert {peer["Name"] for peer in shown["Peers"]} == {"h1", "h2", "h3"}
        assert {task["EndpointIP"] for task in shown["Services"]["web"]["Tasks"]} == {
            address_on(task, "front") for task in web
        }


def test_the_subnets_of_a_network_are_one(cluster: Cluster) -> None:
    subnets = ("--subnet", "10.80.0.0/29", "--subnet", "10.81.0.0/29")
    with (
        network(cluster, "split", *subnets),
        service(cluster, "web", "--replicas", "6", "--network", "split", *FAST),
    ):
        web = cluster.wait_running("web", 6, 40)
        first = next(task for task in web if address_on(task, "split").startswith("10.80."))
        others = [task for task in web if address_on(task, "split").startswith("10.81.")]
        assert others, "the first subnet has five addresses, one of them the service's"
        for other in others:
            reaches(cluster, first, other, "split")
            reaches(cluster, other, first, "split")
        assert "9/12" in cluster.swarm("h1", "network", "ls", "--usage"), "two gateways and a virtual address"


def test_nothing_leads_out_of_an_internal_network(cluster: Cluster) -> None:
    with (
        network(cluster, "closed", "--internal", "-o", "com.docker.network.driver.mtu=1300"),
        service(cluster, "web", "--replicas", "2", "--network", "closed", *FAST),
        service(cluster, "open", "--replicas", "1", *FAST),
    ):
        web = cluster.wait_running("web", 2, 40)
        (task,) = cluster.wait_running("open", 1, 40)
        reaches(cluster, web[0], web[1], "closed")
        assert "default" not in inside(cluster, web[0], "ip", "route")[1]
        assert "default" in inside(cluster, task, "ip", "route")[1]
        assert "mtu 1300" in inside(cluster, web[0], "ip", "link", "show", "eth0")[1]


def test_the_networks_that_every_host_has(cluster: Cluster) -> None:
    shown = cluster.swarm("h1", "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines()
    assert {"bridge bridge local", "host host local", "none null local"} <= set(shown)
    with (
        service(cluster, "near", "--mode", "global", "--network", "host", *FAST),
        service(cluster, "alone", "--network", "none", *FAST),
        service(cluster, "plain", "--network", "bridge", *FAST),
    ):
        cluster.wait_running("near", 3, 40)
        (alone,) = cluster.wait_running("alone", 1, 40)
        (plain,) = cluster.wait_running("plain", 1, 40)
        for host in cluster.hosts:
            # The host's own port: nothing is published.
            cluster.wait_until(lambda host=host: cluster.url_get(host, 80), f"{host} answers")
        assert inside(cluster, alone, "ip", "-o", "-4", "address")[1].count("inet") == 1
        assert "default via" in inside(cluster, plain, "ip", "route")[1]
    for name in ("bridge", "host", "none"):
        assert "cannot be removed" in cluster.refused("h1", "network", "rm", name)
        assert "not permitted" in cluster.refused("h1", "network", "create", name)


def test_what_is_refused_changes_nothing(cluster: Cluster) -> None:
    with network(cluster, "front", "--subnet", "10.77.0.0/24"):
        before = cluster.objects()
        lan = cluster.lab.address("h1").rpartition(".")[0] + ".0/24"
        for arguments, text in (
            (("--subnet", lan, "x"), "has a route to"),
            (("--subnet", "10.77.0.128/25", "x"), "network front has 10.77.0.0/24"),
            (("front",), "network with name front already exists"),
            (("--subnet", "fd00:7::/64", "x"), "give --ipv6 too"),
            (("--ipv6", "--subnet", "fd00:7::/120", "x"), "its mask must be from /16 to /96"),
            (("-d", "macvlan", "x"), "give --config-from NETWORK"),
            (("-o", "colour=red", "x"), "unknown option colour"),
            (("-d", "weave", "x"), 'network driver "weave" is not there'),
            (("-d", "bridge", "x"), "create x with --driver overlay"),
            (("--ingress", "x"), "is already present"),
            (("x/y",), "DNS name component"),
        ):
            assert text in cluster.refused("h1", "network", "create", *arguments)
        for arguments, text in (
            (("--network", "nobody", "web"), "network nobody not found"),
            (("--network", "ingress", "web"), "cannot be explicitly attached to the ingress network"),
            (("--network", "host", "--network", "front", "web"), "cannot be combined"),
            (("--network", "name=front,alias=a b", "web"), "invalid network alias"),
            (("--network", "name=front,colour=red", "web"), "invalid field key colour"),
            (("--endpoint-mode", "dnsrr", "-p", "80:80", "web"), "can't be used with dnsrr mode"),
        ):
            assert text in cluster.refused("h1", "service", "create", "-d", *arguments)
        assert cluster.objects() == before


def test_a_network_in_use_goes_when_its_last_task_has_left(cluster: Cluster, tmp_path: Path) -> None:
    create = ("network", "create", "--subnet", "10.77.0.0/24", "front")
    made = cluster.swarm("h1", *create).strip()
    tmp_path.chmod(0o755)
    signs = ("--mount", f"type=bind,source={tmp_path},target=/signs,readonly")
    slow = ("--stop-signal", "SIGCONT", "--stop-grace-period", "60s", "--detach", *signs)
    lives_on = ("sh", "-c", "until test -e /signs/end; do sleep 0.1; done")
    with service(cluster, "web", "--mode", "global", "--network", "front", *slow, command=lives_on):
        cluster.wait_running("web", 3, 40)
        assert "network front is in use by service web" in cluster.refused("h1", "network", "rm", "front")
    assert cluster.swarm("h1", "network", "rm", "front") == "front\n"
    assert "front" not in cluster.swarm("h1", "network", "ls")
    assert len(sandboxes(cluster, made)) == 3, "its tasks still stop"
    again = cluster.swarm("h1", *create).strip()
    assert cluster.get("/networks/front")["Id"] == again != made
    with service(cluster, "next", "--network", "front", *FAST):
        cluster.wait_until(lambda: waits_for(cluster, "next"), "its task waits for the first's subnet")
        (tmp_path / "end").touch()
        (task,) = cluster.wait_running("next", 1, GONE_S)
        assert address_on(task, "front").startswith("10.77.0.")
    cluster.wait_until(lambda: not sandboxes(cluster, made), "the first is gone", GONE_S)

    def is_forgotten() -> bool:
        try:
            cluster.get(f"/networks/{made}")
        except ApiError as error:
            return error.status == 404
        return False

    cluster.wait_until(is_forgotten, "nobody knows the first")
    cluster.swarm("h1", "network", "rm", "front")


def test_the_ingress_network_is_made_again_with_other_settings(cluster: Cluster) -> None:
    with service(cluster, "web", "-p", "8080:80", *FAST):
        cluster.wait_running("web", 1, 40)
        assert "because service web depends on it" in cluster.refused("h1", "network", "rm", "ingress")
    cluster.wait_until(lambda: not cluster.tasks("web"), "web is gone", GONE_S)
    cluster.swarm("h1", "network", "rm", "ingress")
    assert "no ingress network is present" in cluster.refused(
        "h1", "service", "create", "-d", "-p", "8080:80", "web"
    )
    cluster.swarm("h1", "network", "create", "--ingress", "--subnet", "10.99.0.0/24", "entry")
    with service(cluster, "web", "-p", "8080:80", *FAST):
        (task,) = cluster.wait_running("web", 1, 40)
        assert address_on(task, "entry").startswith("10.99.0.")
        for host in cluster.hosts:
            heard = cluster.wait_until(lambda host=host: cluster.url_get(host, 8080), f"{host} answers")
            assert heard.strip() == task["ID"][:12]


class TestDocker:
    pytestmark = needs_docker

    def test_a_network_from_its_making_to_its_end(self, cluster: Cluster) -> None:
        made = cluster.docker(
            "h1", "network", "create", "-d", "overlay", "--attachable", "--subnet", "10.66.0.0/16",
            "--gateway", "10.66.0.254", "--ip-range", "10.66.1.0/24", "--aux-address", "printer=10.66.1.1",
            "--label", "team=a", "front",
        ).strip()  # fmt: skip
        (found,) = json.loads(cluster.docker("h1", "network", "inspect", "--verbose", "front"))
        assert (found["Id"], found["Attachable"], found["Labels"]) == (made, True, {"team": "a"})
        (config,) = found["IPAM"]["Config"]
        assert config["Subnet"] == "10.66.0.0/16"
        assert config["IPRange"] == "10.66.1.0/24"
        with service(cluster, "web", "--replicas", "2", *FAST):
            cluster.wait_running("web", 2, 40)
            cluster.docker("h1", "service", "update", "-q", "--network-add", "name=front,alias=shop", "web")
            tasks = settled(cluster, "web", 1, 2)
            assert sorted(address_on(task, "front") for task in tasks) == ["10.66.1.2", "10.66.1.3"]
            (shown,) = json.loads(cluster.docker("h1", "service", "inspect", "web"))
            assert [v["Addr"] for v in shown["Endpoint"]["VirtualIPs"]] == ["10.66.1.0/16"]
            refused = cluster.run("h1", "docker", "network", "rm", "front")
            assert "network front is in use by service web" in refused.stderr
            refused = cluster.run("h1", "docker", "service", "update", "-d", "--network-add", "front", "web")
            assert "service is already attached to network front" in refused.stderr
            cluster.docker("h1", "service", "update", "-q", "--network-rm", "front", "web")
            settled(cluster, "web", 0, 2)
        assert cluster.docker("h1", "network", "rm", "front") == "front\n"
        refused = cluster.run("h1", "docker", "network", "rm", "front")
        assert "network front not found" in refused.stderr

    def test_the_host_s_network_and_pruning(self, cluster: Cluster) -> None:
        for name in ("one", "two"):
            cluster.docker("h1", "network", "create", "-d", "overlay", name)
        cluster.docker(
            "h1", "service", "create", "-q", "--name", "near", "--network", "host", "--constraint",
            "node.hostname==h2", "web",
        )  # fmt: skip
        cluster.wait_running("near", 1, 40)
        assert cluster.url_get("h2", 80)
        cluster.docker("h1", "service", "create", "-q", "--name", "web", "--network", "two", "web")
        said = cluster.docker("h1", "network", "prune", "-f")
        assert said == "Deleted Networks:\none\n\n"
        cluster.docker("h1", "service", "rm", "near", "web")
        assert "two" in cluster.swarm("h1", "network", "prune", "-f")


def test_docker_py(cluster: Cluster) -> None:
    client = docker.DockerClient(base_url=f"unix://{cluster.lab.socket_path('h1')}", timeout=30)
    try:
        pool = docker.types.IPAMPool(subnet="10.67.0.0/24", gateway="10.67.0.1")
        made = client.networks.create(
            "py", driver="overlay", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"}
        )
        cluster.wait_until(lambda: "4" in str(made.attrs.get("Options")) or made.reload(), "it has a number")
        assert [n.id for n in client.networks.list(names=["py"], filters={"driver": "overlay"})] == [made.id]
        web = client.services.create("web:latest", name="web", networks=["py"], stop_grace_period=10**9)
        (task,) = cluster.wait_running("web", 1, 40)
        assert address_on(task, "py").startswith("10.67.0.")
        with pytest.raises(docker.errors.APIError, match="network py is in use by service web"):
            made.remove()
        web.remove()
        made.remove()
        with pytest.raises(docker.errors.NotFound):
            client.networks.get("py")
    finally:
        client.close()
