"""`/networks` as clients of the Docker Engine API read and write it."""

from __future__ import annotations

import pytest

from tests.fakes.api_http import Http, web_spec
from tests.fakes.fake_backend import FakeBackend

FRONT = {
    "Name": "front",
    "CheckDuplicate": True,
    "Driver": "overlay",
    "Attachable": True,
    "IPAM": {
        "Driver": "default",
        "Options": {},
        "Config": [
            {
                "Subnet": "10.9.0.0/24",
                "IPRange": "10.9.0.128/25",
                "AuxiliaryAddresses": {"printer": "10.9.0.9"},
            }
        ],
    },
    "Options": {"com.docker.network.driver.mtu": "1400"},
    "Labels": {"team": "a"},
}


async def created(http: Http, **changed: object) -> str:
    status, found, _ = await http.ask("POST", "/networks/create", FRONT | changed)
    assert status == 201
    assert found["Warning"] == ""
    return found["Id"]


async def test_a_network_is_shown_as_it_was_asked_for(http: Http, cluster: FakeBackend) -> None:
    made = await created(http)
    shown = await http.get("/networks/front")
    assert shown["Id"] == made
    assert (shown["Scope"], shown["Driver"], shown["EnableIPv4"]) == ("swarm", "overlay", True)
    assert (shown["Attachable"], shown["Internal"], shown["Ingress"]) == (True, False, False)
    assert shown["IPAM"]["Config"] == FRONT["IPAM"]["Config"]
    assert shown["Options"] == FRONT["Options"]
    assert shown["Labels"] == FRONT["Labels"]
    assert shown["Peers"] == []
    assert (await http.get("/networks/front", verbose="1"))["Services"] == {}


async def test_a_network_with_ipv6(http: Http, cluster: FakeBackend) -> None:
    await created(http, EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:7::/64"}]})
    shown = await http.get("/networks/front")
    assert shown["EnableIPv6"] is True
    assert shown["IPAM"]["Config"] == [{"Subnet": "fd00:7::/64"}]


async def test_lists_are_filtered(http: Http, cluster: FakeBackend) -> None:
    await created(http)
    for filters, names in (
        ('{"type":["custom"]}', {"front"}),
        ('{"type":["builtin"]}', {"bridge", "host", "none", "ingress"}),
        ('{"scope":["local"]}', {"bridge", "host", "none"}),
        ('{"label":["team=a"]}', {"front"}),
        ('{"driver":["null"]}', {"none"}),
        ('{"dangling":["true"]}', {"front"}),
        ('{"name":["fro"]}', {"front"}),
    ):
        assert {found["Name"] for found in await http.get("/networks", filters=filters)} == names


async def test_a_service_names_networks_and_is_shown_their_ids(http: Http, cluster: FakeBackend) -> None:
    made = await created(http)
    spec = web_spec(name="shop")
    spec["Networks"] = [{"Target": "front", "Aliases": ["s"]}]  # where clients before 1.25 put them
    assert (await http.ask("POST", "/services/create", spec))[0] == 201
    shown = await http.get("/services/shop")
    assert shown["Spec"]["TaskTemplate"]["Networks"] == [{"Target": made, "Aliases": ["s"]}]
    assert await http.refused("DELETE", "/networks/front") == (
        400,
        "network front is in use by service shop",
    )
    for target, status, text in (
        ("nobody", 404, "network nobody not found"),
        ("ingress", 400, 'Service cannot be explicitly attached to the ingress network "ingress"'),
    ):
        template = spec["TaskTemplate"] | {"Networks": [{"Target": target}]}
        body = {"Name": "other", "TaskTemplate": template}
        assert await http.refused("POST", "/services/create", body) == (status, text)


async def test_removed_networks_are_gone_for_their_users(http: Http, cluster: FakeBackend) -> None:
    first = await created(http)
    assert (await http.ask("DELETE", "/networks/front"))[0] == 204
    assert await http.refused("DELETE", "/networks/front") == (404, "network front not found")
    assert await http.refused("GET", "/networks/front") == (404, "network front not found")
    # Its subnet is not free before the leader has seen that nobody uses it.
    other = FRONT["IPAM"] | {"Config": []}
    assert await created(http, IPAM=other) != first


async def test_the_networks_of_every_host(http: Http, cluster: FakeBackend) -> None:
    for name in ("bridge", "host", "none"):
        assert (await http.get(f"/networks/{name}"))["Scope"] == "local"
        assert (await http.get(f"/networks/{name}", scope="swarm"))["Scope"] == "swarm"
        assert (await http.refused("DELETE", f"/networks/{name}"))[0] == 403
        body = {"Name": name, "Driver": "overlay"}
        assert (await http.refused("POST", "/networks/create", body))[0] == 403


async def test_outside_of_a_swarm(http: Http, backend: FakeBackend) -> None:
    assert {found["Name"] for found in await http.get("/networks")} == {"bridge", "host", "none"}
    assert (await http.refused("POST", "/networks/create", FRONT))[0] == 503


async def test_what_is_not_attachable_is_not_attached(http: Http, cluster: FakeBackend) -> None:
    await created(http, Attachable=False)
    status, text = await http.refused("POST", "/networks/front/connect", {"Container": "x"})
    assert (status, text.endswith("network front not manually attachable")) == (403, True)
    await created(http, Name="back", IPAM={})
    assert (await http.refused("POST", "/networks/back/connect", {"Container": "x"}))[0] == 501


async def test_pruning_keeps_what_services_use(http: Http, cluster: FakeBackend) -> None:
    await created(http)
    await created(http, Name="back", IPAM={}, Labels={"keep": "yes"})
    spec = web_spec(name="shop")
    spec["TaskTemplate"]["Networks"] = [{"Target": "front"}]
    assert (await http.ask("POST", "/services/create", spec))[0] == 201
    query = {"filters": '{"label!":["keep"]}'}
    assert (await http.ask("POST", "/networks/prune", params=query))[1] == {"NetworksDeleted": []}
    assert (await http.ask("POST", "/networks/prune"))[1] == {"NetworksDeleted": ["back"]}


@pytest.mark.parametrize(
    ("changed", "status", "text"),
    [
        ({"Name": ""}, 400, "meta: name must be provided"),
        ({"Name": "a/b"}, 400, "name must be valid as a DNS name component"),
        ({"Driver": "weave"}, 400, 'network driver "weave" is not there'),
        ({"Driver": "bridge"}, 501, "create front with --driver overlay"),
        ({"Scope": "local"}, 400, "invalid scope local"),
        ({"EnableIPv6": True, "Ingress": True, "Attachable": False}, 400, "has IPv4 only"),
        ({"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::/120"}]}}, 400, "from /16 to /96"),
        ({"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "ff00::/64"}]}}, 400, "not an address range"),
        ({"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::1/64"}]}}, 400, "invalid subnet fd00::1"),
        (
            {"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::/64", "Gateway": "fd01::1"}]}},
            400,
            "does not contain gateway",
        ),
        (
            {"EnableIPv6": True, "Options": {"com.docker.network.driver.mtu": "1200"}, "IPAM": {}},
            400,
            "IPv6 needs at least 1280",
        ),
        (
            {
                "EnableIPv6": True,
                "ConfigOnly": True,
                "Scope": "local",
                "Attachable": False,
                "Options": {"parent": "eth1"},
            },
            400,
            "macvlan networks have IPv4 only",
        ),
        ({"EnableIPv4": False}, 400, "a network needs IPv4"),
        ({"IPAM": {"Driver": "dhcp"}}, 501, "IPAM driver dhcp is not supported"),
        ({"IPAM": {"Options": {"a": "b"}}}, 501, "IPAM options are not supported"),
        ({"IPAM": {"Config": [{"Subnet": "nonsense"}]}}, 400, "ipam configuration: invalid subnet nonsense"),
        ({"IPAM": {"Config": [{"Subnet": "127.0.0.0/16"}]}}, 400, "not an address range for hosts"),
        (
            {"IPAM": {"Config": [{"Subnet": "fd00::/64"}]}},
            400,
            "subnet fd00::/64 is of IPv6: give --ipv6 too",
        ),
        ({"IPAM": {"Config": [{"Gateway": "10.9.0.1"}]}}, 400, "needs its subnet"),
        ({"IPAM": {"Config": [{"Subnet": "10.0.4.0/24"}]}}, 400, "network ingress has 10.0.0.0/20"),
        ({"IPAM": {"Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.0"}]}}, 400, "contain gateway"),
        ({"Options": {"com.docker.network.driver.mtu": "9"}}, 400, "expected a number from 576 to 9166"),
        ({"Options": {"colour": "red"}}, 400, "unknown option colour"),
        ({"Ingress": True, "Attachable": True}, 400, "ingress network cannot be attachable"),
        ({"Ingress": True, "Attachable": False}, 409, "is already present"),
        ({"Labels": {"": "x"}}, 400, "invalid label"),
        ({"Colour": "red"}, 400, "Colour is not supported by this version"),
    ],
)
async def test_what_is_refused_changes_nothing(
    http: Http, cluster: FakeBackend, changed: dict[str, object], status: int, text: str
) -> None:
    before = await http.get("/networks")
    found_status, found = await http.refused("POST", "/networks/create", FRONT | changed)
    assert (found_status, text in found) == (status, True), found
    assert await http.get("/networks") == before


LAN = {
    "Name": "lan",
    "Driver": "bridge",
    "ConfigOnly": True,
    "IPAM": {"Config": [{"Subnet": "192.168.7.0/24", "Gateway": "192.168.7.1"}]},
    "Options": {"parent": "eth1"},
}
WIRE = {"Name": "wire", "Driver": "macvlan", "Scope": "swarm", "ConfigFrom": {"Network": "lan"}}


async def test_settings_of_a_node_need_no_swarm(http: Http, backend: FakeBackend) -> None:
    status, made, _ = await http.ask("POST", "/networks/create", LAN)
    assert status == 201
    shown = await http.get("/networks/lan")
    assert shown["Id"] == made["Id"]
    assert (shown["Scope"], shown["Driver"], shown["ConfigOnly"]) == ("local", "null", True)
    assert shown["Options"] == {"parent": "eth1"}
    assert shown["IPAM"]["Config"] == LAN["IPAM"]["Config"]
    assert {n["Name"] for n in await http.get("/networks")} == {"bridge", "host", "none", "lan"}
    assert await http.refused("POST", "/networks/create", LAN) == (
        409,
        "network with name lan already exists",
    )
    assert await http.refused("POST", "/networks/create", LAN | {"Name": "x", "Scope": "swarm"}) == (
        400,
        "invalid scope swarm: only config-only networks are one node's",
    )
    assert (await http.ask("DELETE", "/networks/lan"))[0] == 204
    assert await http.refused("DELETE", "/networks/lan") == (
        503,
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
        "this node to swarm and try again.",
    )


async def test_a_macvlan_network_of_the_swarm_is_of_its_nodes_settings(
    http: Http, cluster: FakeBackend
) -> None:
    await http.ask("POST", "/networks/create", LAN)
    assert (await http.ask("POST", "/networks/create", WIRE))[0] == 201
    shown = await http.get("/networks/wire")
    assert (shown["Scope"], shown["Driver"], shown["ConfigFrom"]) == ("swarm", "macvlan", {"Network": "lan"})
    assert shown["IPAM"]["Config"] == []
    for changed, text in (
        ({"ConfigFrom": {}}, "give --config-from NETWORK"),
        ({"Driver": "overlay"}, "driver overlay takes no settings from nodes"),
        ({"Options": {"parent": "eth1"}}, "user supplied configurations are not supported"),
        ({"IPAM": LAN["IPAM"]}, "user supplied configurations are not supported"),
        ({"Scope": "local"}, "invalid scope local"),
    ):
        status, said = await http.refused("POST", "/networks/create", WIRE | {"Name": "x"} | changed)
        assert (status, text in said) == (400, True), said
    taken = (409, "network with name {} already exists")
    for posted in (LAN | {"Name": "wire"}, WIRE | {"Name": "lan"}):
        said = (taken[0], taken[1].format(posted["Name"]))
        assert await http.refused("POST", "/networks/create", posted) == said


async def test_host_ports_do_not_lead_past_the_gateway(http: Http, cluster: FakeBackend) -> None:
    await http.ask("POST", "/networks/create", WIRE)
    spec = web_spec()
    spec["EndpointSpec"] = {"Ports": [{"TargetPort": 80, "PublishedPort": 81, "PublishMode": "host"}]}
    spec["TaskTemplate"]["Networks"] = [{"Target": "wire"}]
    status, said = await http.refused("POST", "/services/create", spec)
    assert (status, "add --network bridge" in said) == (400, True)
    spec["TaskTemplate"]["Networks"] = [{"Target": "wire"}, {"Target": "bridge"}]
    assert (await http.ask("POST", "/services/create", spec))[0] == 201
