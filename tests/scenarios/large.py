"""A large cluster without machines, 100 nodes and 10,000 tasks: to test its cost, and for `make bench`."""

from __future__ import annotations

import time
from dataclasses import replace

from swarm.base.ids import NodeID, ServiceID
from swarm.model.objects import Network, Node, NodeStatus, Service, Task
from swarm.model.specs import ReplicatedMode, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.task_state import TaskState
from swarm.model.types import (
    Endpoint,
    EndpointSpec,
    IPAMConfig,
    NodeDescription,
    NodeState,
    PortConfig,
    ResourceRequirements,
    Resources,
    Version,
)
from tests.scenarios.cluster import PureCluster

NODES = 100
SERVICES = 100
REPLICAS = 100
CORE = 1_000_000_000


def large_cluster() -> PureCluster:
    """Nodes that are ready, and services that nobody has looked at yet; half of them publish a port."""
    cluster = PureCluster()
    network = cluster.objects.list(Network)[0]
    cluster.write(replace(network, spec=replace(network.spec, ipam=(IPAMConfig(subnet="10.0.0.0/16"),))))
    for number in range(NODES):
        cluster.add_node(_node(number))
    for number in range(SERVICES):
        cluster.write(_service(number))
    return cluster


def cpu_s_to_settle(cluster: PureCluster) -> float:
    """Of this process, until nothing changes any more. Every task runs then."""
    began = time.process_time()
    cluster.settle()
    took_s = time.process_time() - began
    wanted = [task for task in cluster.objects.list(Task) if task.desired_state <= TaskState.RUNNING]
    assert len(wanted) == SERVICES * REPLICAS
    assert all(task.status.state is TaskState.RUNNING for task in wanted)
    return took_s


def lose_nodes(cluster: PureCluster, count: int) -> None:
    for number in range(count):
        cluster.set_node_state(NodeID(f"n{number:03}"), NodeState.DOWN, power_cut=True)


def _node(number: int) -> Node:
    name = f"n{number:03}"
    resources = Resources(nano_cpus=200 * CORE, memory_bytes=1 << 40)
    return Node(
        id=NodeID(name),
        description=NodeDescription(hostname=name, resources=resources),
        status=NodeStatus(state=NodeState.READY),
    )


def _service(number: int) -> Service:
    ports = (PortConfig(target_port=80, published_port=8000 + number),) if number % 2 else ()
    reserved = ResourceRequirements(reservations=Resources(nano_cpus=CORE))
    return Service(
        id=ServiceID(f"s{number}"),
        spec=ServiceSpec(
            name=f"s{number}",
            task_template=TaskSpec(resources=reserved),
            mode=ServiceMode(replicated=ReplicatedMode(replicas=REPLICAS)),
            endpoint_spec=EndpointSpec(ports=ports),
        ),
        spec_version=Version(index=1),
        endpoint=Endpoint(ports=ports),
    )
