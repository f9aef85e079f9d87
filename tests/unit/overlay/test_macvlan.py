"""What a node's own settings give its tasks, and what they must fulfil."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import AlreadyExists, FailedPrecondition, Fatal, InvalidArgument, NotFound
from swarm.base.ids import SequentialIds
from swarm.model.dataplane import Backend, DataPlane, PublishedPort, TaskNetwork
from swarm.model.network_rules import validate_node_settings
from swarm.model.specs import NetworkSpec
from swarm.model.types import IPAMConfig, NetworkAttachment
from swarm.overlay.balance import plan_rules
from swarm.overlay.macvlan import macvlan_names
from swarm.overlay.macvlan_plan import plan_macvlans
from swarm.overlay.node_networks import NodeNetworks
from swarm.overlay.record_files import RecordFiles
from swarm.overlay.records import MacvlanLink, TaskRecord, plan_record

RANGE = IPAMConfig(
    subnet="192.168.7.0/24",
    ip_range="192.168.7.0/29",
    gateway="192.168.7.2",
    auxiliary_addresses={"printer": "192.168.7.3"},
)
LAN = NetworkSpec(name="lan", config_only=True, ipam=(RANGE,), options={"parent": "eth1"})
OTHER = NetworkSpec(name="other", config_only=True, ipam=(RANGE,), options={"parent": "eth2"})
OVERLAY = NetworkAttachment(network_id="front", addresses=("10.0.16.3/20",))
WIRE = NetworkAttachment(network_id="wire", config_from="lan")
SUBNET = ipaddress.IPv4Network("172.18.0.0/16")


def settings(name: str) -> NetworkSpec | None:
    return {"lan": LAN, "other": OTHER}.get(name)


def attach(records: dict[str, TaskRecord], task_id: str, *attachments: NetworkAttachment) -> TaskRecord:
    task, links = plan_macvlans(TaskNetwork(task_id=task_id, attachments=attachments), records, settings)
    plain = plan_record(task, records, SUBNET)
    records[task_id] = TaskRecord(
        task_id=task_id,
        gateway_address=plain.gateway_address,
        attachments=task.attachments,
        macvlans=links,
    )
    return records[task_id]


def addresses(record: TaskRecord) -> list[str]:
    return [link.address for link in record.macvlans]


def test_addresses_are_of_the_range_and_nobody_elses_on_the_parent() -> None:
    records: dict[str, TaskRecord] = {}
    given = [addresses(attach(records, f"t{n}", WIRE)) for n in range(5)]
    assert given == [[f"192.168.7.{n}/24"] for n in (1, 4, 5, 6, 7)]
    with pytest.raises(Fatal, match=r"could not find an available IP on network lan of this node \(192"):
        attach(records, "t5", WIRE)
    assert addresses(attach(records, "t2", WIRE)) == ["192.168.7.5/24"], "it keeps what it has"
    elsewhere = NetworkAttachment(network_id="wire2", config_from="other")
    assert addresses(attach(records, "t6", elsewhere)) == ["192.168.7.1/24"], "another parent's wire"
    del records["t1"]
    assert addresses(attach(records, "t5", WIRE)) == ["192.168.7.4/24"]


def test_two_networks_of_one_task_on_one_parent_get_two_addresses() -> None:
    twice = NetworkAttachment(network_id="again", config_from="lan")
    record = attach({}, "t1", WIRE, OVERLAY, twice)
    assert addresses(record) == ["192.168.7.1/24", "192.168.7.4/24"]
    names = {name: link.network_id for name, link in macvlan_names(record).items()}
    assert names == {"eth0": "wire", "eth2": "again"}
    assert record.attachments[1] == OVERLAY


def test_settings_that_are_not_there_are_named() -> None:
    missing = NetworkAttachment(network_id="wire", config_from="nowhere")
    with pytest.raises(Fatal, match="network nowhere not found on this node"):
        attach({}, "t1", missing)


def test_nothing_leads_out_of_an_internal_one() -> None:
    closed = NetworkAttachment(network_id="wire", config_from="lan", internal=True)
    assert [link.gateway for link in attach({}, "t1", closed, WIRE).macvlans] == ["", "192.168.7.2"]


def refused(**changes: object) -> str:
    fields: dict[str, object] = {"name": "lan", "config_only": True, "ipam": LAN.ipam, "options": LAN.options}
    with pytest.raises(InvalidArgument) as caught:
        validate_node_settings(NetworkSpec(**{**fields, **changes}))  # type: ignore[arg-type]  # by name
    return str(caught.value)


def test_settings_are_checked_when_they_are_made() -> None:
    validate_node_settings(LAN)
    assert "cannot depend on another configuration network" in refused(config_from="x")
    for field in ("ingress", "internal", "attachable"):
        assert "configuration network can only contain network specific fields" in refused(**{field: True})
    assert "unknown option colour" in refused(options={"parent": "eth1", "colour": "red"})
    for parent in ("", "a b", "x/y", "..", "a-name-too-long-for-it"):
        assert "invalid parent link" in refused(options={"parent": parent})
    assert "expected one of bridge, passthru, private, vepa" in refused(
        options={"parent": "eth1", "macvlan_mode": "x"}
    )
    assert "needs one --subnet" in refused(ipam=())
    two = (IPAMConfig(subnet="10.1.0.0/16"), IPAMConfig(subnet="10.2.0.0/16"))
    assert "needs one --subnet" in refused(ipam=two)
    assert "does not contain gateway" in refused(ipam=(IPAMConfig(subnet="10.1.0.0/16", gateway="10.2.0.1"),))


def test_settings_outlive_the_process_and_stay_while_in_use(tmp_path: Path) -> None:
    records = RecordFiles(tmp_path / "records")
    records.prepare()
    clock, ids = FakeClock(datetime(2026, 1, 1, tzinfo=UTC)), SequentialIds("n")
    made = NodeNetworks(tmp_path / "networks", records, clock, ids).create(LAN)
    again = NodeNetworks(tmp_path / "networks", records, clock, ids)
    assert again.list() == [made]
    assert again.find("lan") == again.find(made.id) == made
    assert again.settings("lan") == LAN
    with pytest.raises(AlreadyExists, match="network with name lan already exists"):
        again.create(LAN)
    link = MacvlanLink(network_id="w", config="lan", parent="eth1", mode="bridge", address="192.168.7.1/24")
    record = TaskRecord(task_id="t1", gateway_address="172.18.0.2", macvlans=(link,))
    records.save(record)
    assert records.load() == {"t1": record}
    with pytest.raises(FailedPrecondition, match="configuration network lan is in use by task t1"):
        again.remove("lan")
    records.delete("t1")
    again.remove(made.id)
    with pytest.raises(NotFound):
        again.remove("lan")
    assert again.list() == []


def test_a_task_without_the_gateway_is_not_reached_by_it() -> None:
    """Its published ports are served on the ingress network alone, sources kept or not."""
    cut_off = TaskRecord(task_id="t1", gateway_address="172.18.0.2", attachments=(OVERLAY,), is_internal=True)
    port = PublishedPort(
        published_port=80, target_port=80, backends=(Backend(address="10.0.16.3"),), preserves_source=True
    )
    for record, by_gateway in ((cut_off, ""), (replace(cut_off, is_internal=False), "172.18.0.2")):
        rules = plan_rules(DataPlane(ports=(port,)), [record], str(SUBNET))
        (targets,) = rules.published.values()
        assert [target.by_gateway for target in targets] == [by_gateway]
