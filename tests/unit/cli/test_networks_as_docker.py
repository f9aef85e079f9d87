"""Networks through an unmodified `docker` and through our command: the same is posted, and shown."""

from __future__ import annotations

import copy
import os
import shlex
import shutil
import subprocess
from typing import Any

import pytest

from swarm.base.errors import InvalidArgument
from swarm.cli.network_flags import ipam_configs
from tests.fakes.fake_api import FakeApi, Request
from tests.unit.cli.test_same_spec_as_docker import OURS, SPEC, posted, serve_spec

pytestmark = [
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker program"),
]

IDS = {"front": "f" * 25, "back": "b" * 25, "third": "t" * 25}
NETWORKED = copy.deepcopy(SPEC)
NETWORKED["TaskTemplate"]["Networks"] = [{"Target": IDS["front"], "Aliases": ["a"]}, {"Target": IDS["back"]}]


@pytest.fixture(autouse=True)
def networks(api: FakeApi) -> None:
    def find(request: Request) -> tuple[int, Any]:
        key = request.path.rpartition("/")[2]
        for name, network_id in IDS.items():
            if key in (name, network_id):
                return 200, {"Name": name, "Id": network_id, "Scope": "swarm", "Driver": "overlay"}
        return 404, {"message": f"network {key} not found"}

    api.put("GET /networks/[^/]+", find)
    api.put("POST /services/create", (201, {"ID": "n" * 25}))
    api.put("POST /networks/create", (201, {"Id": "x" * 25, "Warning": ""}))
    api.put(
        "DELETE /networks/[^/]+", lambda request: (204, None) if find(request)[0] == 200 else find(request)
    )
    api.put("POST /networks/prune", {"NetworksDeleted": ["front", "back"]})


@pytest.mark.parametrize(
    "flags",
    [
        "--network front",
        "--network front --network back",
        "--network name=front,alias=a,alias=b,driver-opt=x=y --endpoint-mode dnsrr",
    ],
)
def test_create_on_networks(api: FakeApi, host: str, flags: str) -> None:
    arguments = ["service", "create", "-d", "--no-resolve-image", *shlex.split(flags), "img:1"]
    theirs = posted(api, host, ["docker"], arguments)
    assert theirs[0] == 0
    assert posted(api, host, OURS, arguments) == theirs


@pytest.mark.parametrize(
    "flags",
    [
        "--network-add third",
        "--network-rm front",
        "--network-rm front --network-add name=third,alias=x",
        "--network-rm front --network-add name=front,alias=other",
        "--network-rm front --network-rm back",
    ],
)
def test_update_of_networks(api: FakeApi, host: str, flags: str) -> None:
    serve_spec(api, NETWORKED)
    arguments = ["service", "update", "-d", *shlex.split(flags), "rich"]
    theirs = posted(api, host, ["docker"], arguments)
    assert theirs[0] == 0
    assert posted(api, host, OURS, arguments) == theirs


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("create --network nobody img", "network nobody not found"),
        ("create --network name=front,colour=red img", "invalid field key colour"),
        ("create --network alias=a img", "network name/id is not specified"),
        ("create --network name=front,driver-opt=x img", "invalid key value pair format in driver options"),
        ("update --network-add front rich", "service is already attached to network front"),
    ],
)
def test_refused_by_both(api: FakeApi, host: str, flags: str, text: str) -> None:
    serve_spec(api, NETWORKED)
    for program in (["docker"], OURS):
        status, body, said = posted(api, host, program, ["service", *shlex.split(flags)])
        assert (status != 0, body) == (True, None)
        assert text in said


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--attachable --internal --label a=b --label c -o x=y --opt encrypted",
        "--subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.2.0.9 --ip-range 10.1.4.0/24 "
        "--aux-address a=10.1.0.3 --aux-address b=10.2.0.3",
        "--subnet 10.1.0.0/16,10.2.0.0/16 --gateway 10.1.0.9,10.2.0.9",
        "--ingress --scope swarm",
        "--config-only",
        "--config-from other",
    ],
)
def test_network_create(api: FakeApi, host: str, flags: str) -> None:
    arguments = ["network", "create", "-d", "overlay", *shlex.split(flags), "mine"]
    found = []
    for program in (["docker"], OURS):
        status, body, _ = posted(api, host, program, arguments)
        assert status == 0
        body.pop("EnableIPv4", None)  # true, as when it is not there
        found.append(body)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((("10.1.0.0/16",), (), ("10.9.0.1",), ()), "no matching subnet for gateway 10.9.0.1"),
        ((("10.1.0.0/16",), ("10.9.0.0/24",), (), ()), "no matching subnet for range 10.9.0.0/24"),
        ((("10.1.0.0/16",), (), (), (("a", "10.9.0.1"),)), "no matching subnet for aux-address 10.9.0.1"),
        (((), (), ("10.9.0.1",), ()), "every ip-range or gateway must have a corresponding subnet"),
        ((("10.1.0.0/16", "10.1.1.0/24"), (), (), ()), "multiple overlapping subnet configuration"),
        (
            (("10.1.0.0/16", "10.2.0.0/16"), (), ("10.1.0.1", "10.1.0.2"), ()),
            "cannot configure multiple gateways",
        ),
        ((("nonsense",), (), (), ()), "invalid CIDR address: nonsense"),
    ],
)
def test_what_belongs_to_no_subnet(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        ipam_configs(*arguments)


@pytest.mark.parametrize(
    "arguments",
    ["network rm front back", "network rm -f nobody", "network prune -f", "service inspect --pretty rich"],
)
def test_the_same_bytes(api: FakeApi, host: str, arguments: str) -> None:
    serve_spec(api, bare(NETWORKED))
    environment = os.environ | {"DOCKER_HOST": host, "SWARM_HOST": host}
    found = [
        subprocess.run(
            [*program, *arguments.split()],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        for program in (["docker"], OURS)
    ]
    assert found[0].stdout == found[1].stdout
    assert found[0].returncode == found[1].returncode


def bare(spec: dict[str, Any]) -> dict[str, Any]:
    """Without the command, which Docker's pretty form leaves out, and what it prints only halfway."""
    found = copy.deepcopy(spec) | {"RollbackConfig": spec["UpdateConfig"]}
    del found["TaskTemplate"]["ContainerSpec"]["Command"]
    return found
