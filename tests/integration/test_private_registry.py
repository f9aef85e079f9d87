"""An image in a registry that wants a login: pinned, pulled by every node, and the login is not shown."""

from __future__ import annotations

import base64
import json
from ipaddress import IPv4Address

import pytest

from swarm.lab import names
from swarm.lab.lab import SWARMD
from tests.integration.cluster import Cluster
from tests.integration.registry import PASSWORD, USER, push, serving

pytestmark = [pytest.mark.root, pytest.mark.docker_client]


@pytest.fixture(scope="module")
def private(lab, web_archive, tmp_path_factory):
    """(cluster, HOST:PORT); nodes have no image yet."""
    cluster = Cluster(lab(hosts=2, daemon=(*SWARMD, "--insecure-registry", str(names.POOL))))
    cluster.found()
    machine = str(IPv4Address(cluster.lab.address("h1")) - 1)
    folder = tmp_path_factory.mktemp("private")
    with serving(folder / "registry", machine, login=True) as address:
        push(web_archive, f"{address}/web:1", login=True)
        yield cluster, address


@pytest.fixture
def logged_in(private, tmp_path):
    """The environment of a client that has logged in."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {private[1]: {"auth": auth}}}))
    return ("env", f"DOCKER_CONFIG={tmp_path}")


@pytest.mark.parametrize("program", ["swarm", "docker"])
def test_every_node_pulls_the_pinned_image_with_the_client_s_login(private, logged_in, program):
    cluster, address = private
    cluster.output(
        *(
            "h1",
            *logged_in,
            program,
            "service",
            "create",
            "-d",
            "-q",
            "--with-registry-auth",
            "--name",
            program,
        ),
        *("--mode", "global", f"{address}/web:1"),
    )
    cluster.wait_running(program, 2)
    (service,) = json.loads(cluster.docker("h1", "service", "inspect", program))
    assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].startswith(f"{address}/web:1@sha256:")
    assert PASSWORD not in json.dumps(service)
    cluster.swarm("h1", "service", "rm", program)


def test_without_a_login_the_image_is_refused_and_nothing_is_made(private):
    cluster, address = private
    before = cluster.objects()
    said = cluster.refused("h1", "service", "create", "-d", "--name", "stranger", f"{address}/none:1")
    assert "none" in said
    assert cluster.objects() == before
