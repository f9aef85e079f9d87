from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from swarm.base.errors import FailedPrecondition, Temporary
from swarm.model.dataplane import DataPlane, TaskNetwork
from swarm.model.types import NetworkAttachment, PortConfig, Protocol, PublishMode
from swarm.overlay.balance import Key, plan_rules
from swarm.overlay.plan import choose_subnet
from swarm.overlay.record_files import RecordFiles
from swarm.overlay.records import TaskRecord, plan_record

SUBNET = ipaddress.IPv4Network("172.18.0.0/29")


def host_port(published: int, target: int = 80, protocol: Protocol = Protocol.TCP) -> PortConfig:
    return PortConfig(
        protocol=protocol, published_port=published, target_port=target, publish_mode=PublishMode.HOST
    )


def attach(records: dict[str, TaskRecord], task_id: str, *ports: PortConfig, slot: str = "") -> TaskRecord:
    record = plan_record(TaskNetwork(task_id=task_id, host_ports=ports, slot=slot), records, SUBNET)
    records[task_id] = record
    return record


def test_addresses_are_distinct_kept_and_used_again() -> None:
    records: dict[str, TaskRecord] = {}
    given = [attach(records, f"t{n}").gateway_address for n in range(5)]
    assert given == [f"172.18.0.{n}" for n in range(2, 7)]
    assert attach(records, "t3").gateway_address == "172.18.0.5"
    with pytest.raises(Temporary, match="no address is free"):
        attach(records, "t5")
    del records["t1"]
    assert attach(records, "t5").gateway_address == "172.18.0.3"


def test_a_host_port_has_one_owner() -> None:
    records: dict[str, TaskRecord] = {}
    attach(records, "t1", host_port(8080))
    attach(records, "t2", host_port(8080, protocol=Protocol.UDP))
    with pytest.raises(Temporary, match=r"^Bind for 0.0.0.0:8080 failed: port is already allocated$"):
        attach(records, "t3", host_port(8080))
    attach(records, "t1", host_port(8080))


def test_a_successor_is_given_the_port_before_its_predecessor_has_gone() -> None:
    records: dict[str, TaskRecord] = {}
    old = attach(records, "t1", host_port(8080), host_port(0, 81), slot="web.1")
    new = attach(records, "t2", host_port(8080), host_port(0, 81), slot="web.1")
    assert [port.published_port for port in old.host_ports] == [8080, 49153]
    assert [port.published_port for port in new.host_ports] == [8080, 49154]
    with pytest.raises(Temporary):
        attach(records, "t3", host_port(8080), slot="web.2")
    key = Key(protocol=Protocol.TCP, port=8080)

    def target() -> str:
        return plan_rules(DataPlane(), records.values(), str(SUBNET)).host_ports[key].address

    assert target() == old.gateway_address
    del records["t1"]
    assert target() == new.gateway_address


def test_any_port_is_chosen_once_and_kept() -> None:
    records: dict[str, TaskRecord] = {}
    first = attach(records, "t1", host_port(0), host_port(0, 81)).host_ports
    assert [port.published_port for port in first] == [49153, 49154]
    assert attach(records, "t2", host_port(0)).host_ports[0].published_port == 49155
    assert attach(records, "t1", host_port(0), host_port(0, 81)).host_ports == first


def test_files_give_back_what_was_saved(tmp_path: Path) -> None:
    record = TaskRecord(
        task_id="t1",
        gateway_address="172.18.0.2",
        attachments=(
            NetworkAttachment(
                network_id="n1",
                addresses=("10.0.0.5/24",),
                subnets=("10.0.0.0/24", "10.0.1.0/24"),
                internal=True,
            ),
            NetworkAttachment(network_id="n2", addresses=("10.2.0.5/24",)),
        ),
        is_internal=True,
        host_ports=(host_port(8080), host_port(53, 5353, Protocol.UDP)),
        slot="web.1",
    )
    files = RecordFiles(tmp_path / "network")
    files.prepare()
    files.save(record)
    assert files.load() == {"t1": record}
    files.delete("t1")
    files.delete("t1")
    assert files.load() == {}


def test_the_gateway_network_avoids_what_the_host_uses() -> None:
    busy = [ipaddress.IPv4Network(text) for text in ("172.18.4.0/24", "172.19.0.0/16", "10.0.0.0/8")]
    assert choose_subnet(busy) == ipaddress.IPv4Network("172.20.0.0/16")
    with pytest.raises(FailedPrecondition):
        choose_subnet([ipaddress.IPv4Network("0.0.0.0/0")])
