from __future__ import annotations

import pytest

from swarm.base.ids import TaskID
from swarm.model.objects import Task
from swarm.model.types import NetworkAttachment
from swarm.worker.controller import on_network, task_network

OPEN = NetworkAttachment(network_id="front", addresses=("10.0.16.3/20",))
CLOSED = NetworkAttachment(network_id="db", addresses=("10.9.0.3/24",), internal=True)
WIRE = NetworkAttachment(network_id="wire", config_from="lan")
CLOSED_WIRE = NetworkAttachment(network_id="wire", config_from="lan", internal=True)
BRIDGE, HOST, NONE = (NetworkAttachment(network_id=name) for name in ("bridge", "host", "none"))


@pytest.mark.parametrize(
    ("attachments", "is_internal"),
    [
        ((), False),
        ((OPEN,), False),
        ((CLOSED,), True),
        ((CLOSED, OPEN), False),
        ((CLOSED, BRIDGE), False),
        ((BRIDGE,), False),
        ((NONE,), True),
        ((WIRE,), True),
        ((OPEN, WIRE), True),
        ((WIRE, BRIDGE), False),
        ((CLOSED_WIRE,), True),
        ((CLOSED_WIRE, OPEN), False),
    ],
)
def test_who_has_no_link_to_the_hosts_gateway(
    attachments: tuple[NetworkAttachment, ...], is_internal: bool
) -> None:
    wanted = task_network(Task(id=TaskID("t"), attachments=attachments), ())
    assert wanted.is_internal is is_internal
    assert wanted.attachments == tuple(a for a in attachments if a.addresses or a.config_from)


def test_the_hosts_network_is_told_from_others() -> None:
    assert on_network(Task(id=TaskID("t"), attachments=(HOST,)), "host")
    assert not on_network(Task(id=TaskID("t"), attachments=(OPEN,)), "host")
