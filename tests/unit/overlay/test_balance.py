from __future__ import annotations

from dataclasses import replace

from swarm.model.dataplane import Backend, DataPlane, OverlayNetwork, PublishedPort
from swarm.model.types import NetworkAttachment, PortConfig, Protocol, PublishMode
from swarm.overlay.balance import (
    Key,
    Rules,
    choose_backends,
    dropped_targets,
    opened_ports,
    plan_rules,
    render_change,
    render_table,
    shape_of,
)
from swarm.overlay.records import TaskRecord

SUBNET = "172.18.0.0/16"


def rules(ports: dict[int, list[str]], host_ports: tuple[PortConfig, ...] = ()) -> Rules:
    published = tuple(
        PublishedPort(
            published_port=number, target_port=80, backends=tuple(Backend(address=a) for a in addresses)
        )
        for number, addresses in ports.items()
    )
    record = TaskRecord(task_id="t1", gateway_address="172.18.0.2", host_ports=host_ports)
    desired = DataPlane(networks=(OverlayNetwork(id="n1"),), ports=published)
    return plan_rules(desired, [record], SUBNET)


def test_suspects_serve_only_when_nobody_else_is_left() -> None:
    sound, suspect = Backend(address="10.0.0.5"), Backend(address="10.0.0.6", suspect=True)
    assert choose_backends((sound, suspect)) == (sound,)
    assert choose_backends((suspect,)) == (suspect,)
    assert choose_backends(()) == ()


def test_a_change_touches_only_the_port_that_changed() -> None:
    before = rules({8080: ["10.0.0.5"], 9090: ["10.0.0.9"]})
    after = rules({8080: ["10.0.0.5", "10.0.0.6"], 9090: ["10.0.0.9"]})
    assert render_change(before, after).splitlines() == [
        "flush chain ip swarm port-tcp-8080",
        "add rule ip swarm port-tcp-8080 meta l4proto tcp dnat ip to numgen inc mod 2 map "
        "{ 0 : 10.0.0.5 . 80, 1 : 10.0.0.6 . 80 }",
    ]
    assert render_change(after, after) == ""


def test_a_port_without_backends_is_refused() -> None:
    before, after = rules({8080: ["10.0.0.5"]}), rules({8080: []})
    assert render_change(before, after).splitlines() == [
        "delete element ip swarm published { tcp . 8080 }",
        "flush chain ip swarm port-tcp-8080",
        "delete chain ip swarm port-tcp-8080",
        "add element ip swarm unserved { tcp . 8080 }",
    ]
    assert shape_of(after).sets == {"published": 0, "unserved": 1, "host_ports": 0}
    assert render_change(after, rules({})) == "delete element ip swarm unserved { tcp . 8080 }\n"


def test_host_ports_lead_to_the_task_on_the_gateway() -> None:
    port = PortConfig(
        protocol=Protocol.UDP, published_port=53, target_port=5353, publish_mode=PublishMode.HOST
    )
    before, after = rules({}), rules({}, (port,))
    assert render_change(before, after) == (
        "add element ip swarm host_ports { udp . 53 : 172.18.0.2 . 5353 }\n"
    )
    assert render_change(after, before) == "delete element ip swarm host_ports { udp . 53 }\n"


def test_a_port_that_keeps_addresses_leads_to_tasks_here_by_the_gateway() -> None:
    backends = tuple(Backend(address=a) for a in ("10.0.0.5", "10.0.0.9"))
    port = PublishedPort(published_port=80, target_port=80, backends=backends, preserves_source=True)
    attachment = NetworkAttachment(network_id="n1", addresses=("10.0.0.5/24",))
    here = TaskRecord(task_id="t1", gateway_address="172.18.0.2", attachments=(attachment,))
    plain = plan_rules(DataPlane(ports=(replace(port, preserves_source=False),)), [here], SUBNET)
    kept = plan_rules(DataPlane(ports=(port,)), [here], SUBNET)
    dnat = "meta l4proto tcp dnat ip to numgen inc mod 2 map"
    assert render_change(plain, kept).splitlines() == [
        "flush chain ip swarm port-tcp-80",
        f'add rule ip swarm port-tcp-80 iifname "swarm-gw" {dnat} {{ 0 : 10.0.0.5 . 80, 1 : 10.0.0.9 . 80 }}',
        f"add rule ip swarm port-tcp-80 {dnat} {{ 0 : 172.18.0.2 . 80, 1 : 10.0.0.9 . 80 }}",
    ]
    assert (shape_of(plain).chains["port-tcp-80"], shape_of(kept).chains["port-tcp-80"]) == (1, 2)


def test_another_tunnel_port_makes_the_table_anew() -> None:
    before = rules({8080: ["10.0.0.5"]})
    desired = DataPlane(networks=(OverlayNetwork(id="n1", data_path_port=4790),))
    after = plan_rules(desired, [], SUBNET)
    assert render_change(before, after) == render_table(after)
    assert "udp dport 4790 drop" in render_table(after)


def test_flows_to_forget() -> None:
    before, after = rules({8080: ["10.0.0.5", "10.0.0.6"]}), rules({8080: ["10.0.0.6"]})
    assert dropped_targets(before, after) == {(Protocol.TCP, "10.0.0.5")}
    assert opened_ports(rules({8080: []}), after) == {Key(protocol=Protocol.TCP, port=8080)}
    assert opened_ports(before, after) == set()
