from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.base.ids import NetworkID, NodeID, ServiceID, TaskID
from swarm.manager.dispatcher.assignments import node_items, shared_items
from swarm.model.objects import Network, Node, NodeStatus, Service, Task, TaskStatus
from swarm.model.specs import ContainerSpec, NetworkSpec, ServiceSpec, TaskSpec
from swarm.model.task_state import TaskState as S
from swarm.model.types import (
    Endpoint,
    IPAMConfig,
    NetworkAttachment,
    NetworkAttachmentConfig,
    NodeDescription,
    NodeState,
    VirtualIP,
)
from swarm.model.view import Objects

FRONT, BACK = NetworkID("front"), NetworkID("back")
WEB = ServiceID("webservice")
N1, N2 = NodeID("n1"), NodeID("n2")
KEY = f"service/{FRONT}/{WEB}"


def network(network_id, subnet, vni):
    ipam = (IPAMConfig(subnet=subnet),)
    return Network(id=network_id, spec=NetworkSpec(name=network_id, internal=True), ipam=ipam, vni=vni)


def node(node_id, state=NodeState.READY):
    description = NodeDescription(hostname=f"host-{node_id}", data_path_address=f"192.0.2.{node_id[1]}")
    return Node(id=node_id, status=NodeStatus(state=state), description=description)


def task(name, node_id, address, hostname=""):
    return Task(
        id=TaskID(name),
        service_id=WEB,
        service_name="web",
        slot=1,
        node_id=node_id,
        spec=TaskSpec(container_spec=ContainerSpec(hostname=hostname)),
        status=TaskStatus(state=S.RUNNING),
        attachments=(NetworkAttachment(network_id=FRONT, addresses=(f"{address}/24",)),),
    )


@pytest.fixture
def view():
    template = TaskSpec(networks=(NetworkAttachmentConfig(target=FRONT, aliases=("www",)),))
    virtual = (VirtualIP(network_id=FRONT, addr="10.0.1.2/24"),)
    service = Service(
        id=WEB,
        spec=ServiceSpec(name="web", task_template=template),
        endpoint=Endpoint(virtual_ips=virtual),
    )
    return Objects(
        [
            network(FRONT, "10.0.1.0/24", 4097),
            network(BACK, "10.0.2.0/24", 4098),
            service,
            node(N1),
            node(N2),
            task("a23456789012345", N1, "10.0.1.11"),
            task("b23456789012345", N1, "10.0.1.12", hostname="web-{{.Task.Slot}}-{{.Node.Hostname}}"),
        ]
    )


def test_a_service_is_told_with_its_names_and_tasks(view):
    found = shared_items(view)[KEY]
    assert (found.name, found.virtual_ip, found.aliases) == ("web", "10.0.1.2", ("www",))
    assert [(b.address, b.names) for b in found.backends] == [
        ("10.0.1.11", ("web.1.a23456789012345", "a23456789012")),
        ("10.0.1.12", ("web.1.b23456789012345", "b23456789012", "web-1-host-n1")),
    ]


def test_a_service_without_a_running_task_is_still_told(view):
    for one in view.list(Task):
        view.put(replace(one, desired_state=S.SHUTDOWN))
    assert shared_items(view)[KEY].backends == ()


def test_a_node_is_told_only_of_networks_that_it_has_tasks_on(view):
    shared = shared_items(view)
    near = node_items(view, N1, shared)
    assert {k for k in near if not k.startswith("task/")} == {
        f"network/{FRONT}",
        KEY,
        f"endpoint/{FRONT}/10.0.1.11",
        f"endpoint/{FRONT}/10.0.1.12",
    }
    assert near[f"network/{FRONT}"].internal
    assert node_items(view, N2, shared) == {}


def test_a_network_stays_told_until_its_last_task_has_ended(view):
    for one in view.list(Task):
        view.put(replace(one, desired_state=S.SHUTDOWN))
    assert f"network/{FRONT}" in node_items(view, N1, {})
    for one in view.list(Task):
        view.put(replace(one, status=TaskStatus(state=S.SHUTDOWN)))
    assert f"network/{FRONT}" not in node_items(view, N1, {})


def test_tasks_of_a_silent_node_are_suspect_and_those_of_a_down_one_gone(view):
    view.put(node(N1, NodeState.UNKNOWN))
    assert [b.suspect for b in shared_items(view)[KEY].backends] == [True, True]
    view.put(node(N1, NodeState.DOWN))
    assert shared_items(view)[KEY].backends == ()
