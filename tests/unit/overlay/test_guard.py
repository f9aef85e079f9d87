from __future__ import annotations

from dataclasses import replace

from swarm.model.types import NetworkAttachment
from swarm.overlay.guard import (
    gateway_places,
    overlay_places,
    render_guard,
    render_places,
    shape_of_guard,
)
from swarm.overlay.records import TaskRecord


def record(number: int, *, is_internal: bool = False) -> TaskRecord:
    given = NetworkAttachment(network_id="n1", addresses=(f"10.0.0.{number}/24",))
    gateway = f"172.18.0.{number}"
    return TaskRecord(
        task_id=f"t{number}", gateway_address=gateway, attachments=(given,), is_internal=is_internal
    )


def test_a_place_is_made_of_its_address() -> None:
    records = [record(11), record(12, is_internal=True)]
    assert render_places(overlay_places(records, "n1")).splitlines() == [
        'add element bridge swarm places { "p0a00000b" . 02:42:0a:00:00:0b . 10.0.0.11 }',
        'add element bridge swarm places { "p0a00000c" . 02:42:0a:00:00:0c . 10.0.0.12 }',
    ]
    assert overlay_places(records, "n2") == frozenset()
    assert render_places(gateway_places(records)).splitlines() == [
        'add element bridge swarm places { "swgac12000b" . 02:42:ac:12:00:0b . 172.18.0.11 }'
    ]


def test_ipv6_is_a_place_and_what_may_be_advertised() -> None:
    given = NetworkAttachment(network_id="n1", addresses=("10.0.0.11/24", "fd00::a00:b/64"))
    places = overlay_places([replace(record(11), attachments=(given,))], "n1")
    assert render_places(places).splitlines() == [
        'add element bridge swarm places { "p0a00000b" . 02:42:0a:00:00:0b . 10.0.0.11 }',
        'add element bridge swarm ipv6_places { "p0a00000b" . 02:42:0a:00:00:0b . fd00::a00:b }',
        'add element bridge swarm advertised { "p0a00000b" . 0xfd00000000000000000000000a00000b }',
    ]
    assert shape_of_guard("p", places).sets == {"places": 1, "ipv6_places": 1, "advertised": 1}


def test_what_is_not_the_ports_own_is_dropped_last() -> None:
    places = overlay_places([record(11)], "n1")
    rules = [line.strip() for line in render_guard("p", places).splitlines()]
    assert 'iifname != "p*" accept' in rules
    chain = rules[rules.index("chain prerouting {") :]
    assert chain[chain.index("}") - 1] == "drop"
    assert shape_of_guard("p", places).chains == {"prerouting": 6}


def test_on_the_gateways_bridge_only_the_gateway_is_reached() -> None:
    places = gateway_places([record(11)])
    lines = [line.strip() for line in render_guard("swg", places, "172.18.0.1").splitlines()]
    ip, arp, *_ = [line for line in lines if line.startswith("ether")]
    assert ip.startswith("ether daddr 02:42:ac:12:00:01 ether type ip iifname . ")
    assert arp.startswith("ether type arp arp daddr ip 172.18.0.1 iifname . ")
    assert shape_of_guard("swg", places).chains == {"prerouting": 6}
