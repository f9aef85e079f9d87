from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument
from swarm.base.ids import NodeID
from swarm.model.constraint import parse_constraints, satisfies
from swarm.model.objects import Node, NodeStatus
from swarm.model.specs import NodeSpec
from swarm.model.types import EngineDescription, NodeDescription, NodeRole, Platform

NODE = Node(
    id=NodeID("node1"),
    spec=NodeSpec(labels={"zone": "North", "Zone": "x"}, role=NodeRole.MANAGER),
    description=NodeDescription(
        hostname="h1",
        platform=Platform(os="linux", architecture="x86_64"),
        engine=EngineDescription(labels={"gpu": "yes"}),
    ),
    status=NodeStatus(addr="10.1.2.3"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node.id==node1", True),
        ("node.id != node1", False),
        ("NODE.Hostname == H1", True),
        ("node.role==manager", True),
        ("node.role!=manager", False),
        ("node.ip==10.1.2.3", True),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip!=10.2.0.0/16", True),
        ("node.platform.os==linux", True),
        ("node.platform.arch==amd64", True),
        ("node.platform.arch==arm64", False),
        ("node.labels.zone==north", True),
        ("node.labels.Zone==x", True),
        ("node.labels.missing!=a", True),
        ("node.labels.missing==a", False),
        ("engine.labels.gpu==yes", True),
        ("node.labels.zone==nor", False),
        ("node.labels.zone in (south, north)", True),
        ("node.labels.zone in(south)", False),
        ("node.labels.zone not in (south,east)", True),
        ("node.labels.zone  NOT IN (north)", False),
        ("node.labels.missing not in (a)", True),
        ("node.hostname in (h1,h2)", True),
        ("node.ip in (10.2.0.0/16, 10.1.0.0/16)", True),
        ("node.platform.arch in (arm64, amd64)", True),
        ("node.labels.zone exists", True),
        ("node.labels.missing exists", False),
        ("node.labels.missing !exists", True),
        ("engine.labels.gpu ! exists", False),
        ("node.ip exists", True),
        ("node.labels.zone==north exists", False),
    ],
)
def test_matching(text: str, expected: bool) -> None:
    assert satisfies((text,), NODE) is expected


def test_all_constraints_count() -> None:
    assert not satisfies(("node.role==manager", "node.id==other"), NODE)
    assert satisfies((), NODE)


def test_an_unreadable_constraint_or_address_matches_nothing() -> None:
    assert not satisfies(("node.id",), NODE)
    assert not satisfies(("node.ip==10.1.2.3",), Node(id=NodeID("n")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node.role", "constraint expected one operator from ==, !="),
        ("node.role=manager", "constraint expected one operator from ==, !="),
        ("==manager", "key '' is invalid"),
        ("node role==a", "key 'node role' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a;b", "value 'a;b' is invalid"),
        ("node.ip==1.2.3", "value '1.2.3' is invalid: node.ip takes an address or CIDR"),
        ("node.labels.==a", "constraint key 'node.labels.' is unknown, use one of "),
        ("node.role in a,b", "constraint expected one operator from ==, !="),
        ("node.role exist", "constraint expected one operator from ==, !="),
        ("in (a)", "constraint expected one operator from ==, !="),
        ("node.labels.zone in ()", "value '' is invalid"),
        ("node.labels.zone in (a,)", "value '' is invalid"),
        ("node.labels.zone in (a;b)", "value 'a;b' is invalid"),
        ("node.ip in (10.0.0.1, x)", "value 'x' is invalid: node.ip takes an address or CIDR"),
        ("gpu exists", "constraint key 'gpu' is unknown, use one of "),
        ("host==a", "constraint key 'host' is unknown, use one of "),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_constraints([text])
    assert str(caught.value).startswith(message)
