"""A node's config-only networks: the real ones, and those that tests of the API have in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from swarm.api.backend import NodeNetworks as Wanted
from swarm.base.clock import FakeClock
from swarm.base.errors import AlreadyExists, InvalidArgument, NotFound
from swarm.base.ids import SequentialIds
from swarm.model.specs import NetworkSpec
from swarm.model.types import IPAMConfig
from swarm.overlay.node_networks import NodeNetworks
from swarm.overlay.record_files import RecordFiles
from tests.fakes.fake_backend import FakeNodeNetworks

LAN = NetworkSpec(
    name="lan",
    driver="null",
    config_only=True,
    ipam=(IPAMConfig(subnet="192.168.7.0/24"),),
    options={"parent": "eth1"},
)


@pytest.fixture(params=["real", "fake"])
def networks(request: pytest.FixtureRequest, tmp_path: Path) -> Wanted:
    if request.param == "fake":
        return FakeNodeNetworks()
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    return NodeNetworks(tmp_path / "networks", RecordFiles(tmp_path / "records"), clock, SequentialIds("n"))


def test_what_is_made_is_found_until_it_is_removed(networks: Wanted) -> None:
    assert networks.list() == []
    made = networks.create(LAN)
    assert (made.spec, made.meta.created_at) == (LAN, datetime(2026, 1, 1, tzinfo=UTC))
    assert networks.find("lan") == networks.find(made.id) == made
    assert networks.find("la") is None
    networks.remove("lan")
    assert networks.list() == []


def test_what_is_refused_changes_nothing(networks: Wanted) -> None:
    with pytest.raises(InvalidArgument):
        networks.create(NetworkSpec(name="lan", config_only=True))
    with pytest.raises(NotFound):
        networks.remove("lan")
    assert networks.list() == []
    made = networks.create(LAN)
    with pytest.raises(AlreadyExists):
        networks.create(LAN)
    assert networks.list() == [made]
