from __future__ import annotations

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
            Key(protocol=Protocol.TCP, port=8083): (Target(address="172.18.0.1", port=PROXY_PORT),),
        },
        host_ports={Key(protocol=Protocol.UDP, port=53): Target(address="172.18.0.3", port=5353)},
    )
    assert plan_relayed(rules) == {
        "tcp/8080": [["10.0.0.5", 80], ["10.0.0.6", 80]],
        "udp/53": [["172.18.0.3", 5353]],
    }
