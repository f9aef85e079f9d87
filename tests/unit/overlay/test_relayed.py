from __future__ import annotations

from swarm.model.dataplane import Backend, PublishedPort
from swarm.model.types import Protocol
from swarm.overlay.balance import PROXY_PORT, Key, Rules, Target
from swarm.overlay.relayed import plan_relayed


def test_served_ports_of_both_modes_are_relayed_to_the_tables_targets() -> None:
    rules = Rules(
        gateway_subnet="172.18.0.0/16",
        published={
            Key(protocol=Protocol.TCP, port=8080): (
                Target(address="10.0.0.5", port=80, by_gateway="172.18.0.2"),
                Target(address="10.0.0.6", port=80),
            ),
            Key(protocol=Protocol.TCP, port=8081): (),
            Key(protocol=Protocol.SCTP, port=8082): (Target(address="10.0.0.5", port=80),),
            Key(protocol=Protocol.UDP, port=53): (Target(address="10.0.0.7", port=53),),
        },
        host_ports={Key(protocol=Protocol.UDP, port=53): Target(address="172.18.0.3", port=5353)},
    )
    assert plan_relayed(rules, []) == {
        "tcp/8080": {"targets": [["10.0.0.5", 80], ["10.0.0.6", 80]], "header": False},
        "udp/53": {"targets": [["172.18.0.3", 5353]], "header": False},
    }


def proxied(number: int, *backends: Backend) -> PublishedPort:
    return PublishedPort(published_port=number, target_port=80, proxy_protocol=True, backends=backends)


def test_tasks_that_expect_the_header_are_reached_past_haproxy_and_only_with_it() -> None:
    haproxy = (Target(address="172.18.0.1", port=PROXY_PORT),)
    keys = [Key(protocol=Protocol.TCP, port=number) for number in (8080, 8081, 8082, 8083)]
    sound, suspect = Backend(address="10.0.0.5"), Backend(address="10.0.0.6", suspect=True)
    rules = Rules(
        gateway_subnet="172.18.0.0/16",
        published={keys[0]: haproxy, keys[1]: (), keys[2]: haproxy, keys[3]: ()},
        host_ports={keys[2]: Target(address="172.18.0.3", port=80)},
    )
    ports = [proxied(8080, sound, suspect), proxied(8081), proxied(8082, sound), proxied(8083, suspect)]
    assert plan_relayed(rules, ports) == {
        "tcp/8080": {"targets": [["10.0.0.5", 80]], "header": True},
        "tcp/8082": {"targets": [["172.18.0.3", 80]], "header": False},
        "tcp/8083": {"targets": [["10.0.0.6", 80]], "header": True},
    }
