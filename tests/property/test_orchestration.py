"""Anything may happen, and leaders may die after any write: what never breaks, and what always recovers.

I1-I5 and I9 of the design's invariants, on the pure cluster (whose `commit` checks each single step).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swarm.base.ids import NodeID, ServiceID
from swarm.model.objects import Network, Node, NodeStatus, Service, Task
from swarm.model.specs import GlobalMode, NodeSpec, ReplicatedMode, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import (
    Availability,
    Endpoint,
    EndpointSpec,
    NodeDescription,
    NodeState,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    Version,
)
from swarm.scheduler.cluster import Accounting
from tests.scenarios.cluster import PureCluster, SlotKey, slot_of

NODES = [NodeID(name) for name in ("n1", "n2", "n3", "n4")]
SERVICES = [ServiceID(name) for name in ("a", "b", "c", "x")]
EXCLUSIVE = "x"
HISTORY = 5
ENDS = [TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED]
RESERVED = 1_000_000_000
"""Of each task. A node has 11 times that: too little for everything, enough where four nodes share it."""


def template(condition: RestartCondition) -> TaskSpec:
    return TaskSpec(
        restart_policy=RestartPolicy(condition=condition, delay=timedelta(seconds=2)),
        resources=ResourceRequirements(reservations=Resources(nano_cpus=RESERVED)),
    )


class Orchestration(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = PureCluster()
        network = self.objects.list(Network)[0]
        self.cluster.write(replace(network, spec=replace(network.spec, subnet="10.0.0.0/26")))
        for name in NODES[:3]:
            self.add_node(name)
        self.create(SERVICES[0], 4, False, RestartCondition.ANY)
        self.create(SERVICES[1], 0, True, RestartCondition.ON_FAILURE)
        self.cluster.settle()

    @property
    def objects(self):
        return self.cluster.objects

    def add_node(self, name: NodeID) -> None:
        self.cluster.add_node(
            Node(
                id=name,
                spec=NodeSpec(),
                description=NodeDescription(
                    hostname=name, resources=Resources(nano_cpus=11 * RESERVED, memory_bytes=1 << 30)
                ),
                status=NodeStatus(state=NodeState.READY),
            )
        )

    # -- what users do -------------------------------------------------------------------------------------

    @rule(
        service_id=st.sampled_from(SERVICES),
        replicas=st.integers(0, 5),
        is_global=st.booleans(),
        condition=st.sampled_from(RestartCondition),
    )
    def create(self, service_id, replicas, is_global, condition) -> None:
        if self.objects.get(Service, service_id) or self.objects.tasks_of_service(service_id):
            return  # ids are never used twice
        replicated = ServiceMode(replicated=ReplicatedMode(replicas=replicas))
        ports = (PortConfig(target_port=80, published_port=8000),)
        self.cluster.write(
            Service(
                id=service_id,
                spec=ServiceSpec(
                    name=service_id,
                    labels={"swarm.exclusive": "true"} if service_id == EXCLUSIVE else {},
                    mode=ServiceMode(global_=GlobalMode()) if is_global else replicated,
                    task_template=template(condition),
                    endpoint_spec=EndpointSpec(ports=ports),
                ),
                spec_version=Version(index=1),
                endpoint=Endpoint(ports=ports),
            )
        )

    @rule(service_id=st.sampled_from(SERVICES), replicas=st.integers(0, 5))
    def scale(self, service_id, replicas) -> None:
        service = self.objects.get(Service, service_id)
        if service and service.spec.mode.replicated:
            self.cluster.scale(service, replicas)

    @rule(service_id=st.sampled_from(SERVICES))
    def remove_service(self, service_id) -> None:
        if self.objects.get(Service, service_id):
            self.cluster.remove_service(service_id)

    @rule(name=st.sampled_from(NODES), availability=st.sampled_from(Availability))
    def set_availability(self, name, availability) -> None:
        self.cluster.set_availability(name, availability)

    @rule(name=st.sampled_from(NODES))
    def remove_or_add_node(self, name) -> None:
        node = self.objects.get(Node, name)
        if node is None:
            self.add_node(name)
        elif node.status.state is NodeState.DOWN:
            self.cluster.remove_node(name)

    # -- what goes wrong -----------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(NODES),
        state=st.sampled_from([NodeState.DOWN, NodeState.UNKNOWN, NodeState.READY]),
        power_cut=st.booleans(),
    )
    def set_node_state(self, name, state, power_cut) -> None:
        if self.objects.get(Node, name):
            self.cluster.set_node_state(name, state, power_cut=power_cut and state is NodeState.DOWN)

    @rule(name=st.sampled_from(NODES))
    def fence(self, name) -> None:
        node = self.objects.get(Node, name)
        if node is None or node.status.state is NodeState.DOWN:
            self.cluster.fence(name)

    @rule(is_slow=st.booleans())
    def stop_slowly(self, is_slow) -> None:
        for host in self.cluster.hosts.values():
            host.is_stopping_slowly = is_slow

    @rule(pick=st.integers(0, 30), end=st.sampled_from(ENDS))
    def end_task(self, pick, end) -> None:
        running = [
            task
            for task in self.objects.list(Task)
            if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
            and task.desired_state <= TaskState.RUNNING
            and self.cluster.hosts[task.node_id].is_connected
        ]
        if running:
            self.cluster.end_task(running[pick % len(running)], end)

    # -- what the cluster does -----------------------------------------------------------------------------

    @rule(prefix=st.integers(0, 6))
    def leader_dies(self, prefix) -> None:
        """The successor starts with what is stored and nothing else."""
        self.cluster.lead(prefix)
        self.cluster.accounting = Accounting.of(self.objects)

    @rule()
    def lead(self) -> None:
        self.cluster.lead()
        for service in self.objects.list(Service):
            if service.spec.mode.replicated:
                assert len(self.wanted_slots(service)) <= service.spec.mode.replicated.replicas

    @rule()
    def act(self) -> None:
        self.cluster.act()

    @rule()
    def round(self) -> None:
        self.lead()
        self.cluster.act()

    @rule(duration=st.sampled_from([0.0, 0.5, 3.0, 30.0]))
    def tick(self, duration) -> None:
        self.cluster.tick(timedelta(seconds=duration))

    @precondition(lambda self: self.objects.list(Service))
    @rule()
    def faults_stop(self) -> None:
        """I5: everything stands as it was asked for, and history stays within its limit."""
        for name in list(self.cluster.hosts):
            self.cluster.hosts[name].is_stopping_slowly = False
            self.cluster.set_node_state(name, NodeState.READY)
            self.cluster.set_availability(name, Availability.ACTIVE)
        for name in NODES:
            if name not in self.cluster.hosts:
                self.add_node(name)
        self.cluster.fence(*NODES)
        self.cluster.tick(timedelta(seconds=30))
        for service in self.objects.list(Service):
            self.check_converged(service)
        services = {service.id for service in self.objects.list(Service)}
        assert all(task.service_id in services for task in self.objects.list(Task))
        self.check_history()

    def check_converged(self, service: Service) -> None:
        tasks = self.objects.tasks_of_service(service.id)
        wanted = [task for task in tasks if task.desired_state <= TaskState.RUNNING]
        assert all(task.status.state is TaskState.RUNNING for task in wanted)
        assert all(task.desired_state is TaskState.RUNNING for task in wanted)
        spent = self.slots(tasks) - self.slots(wanted)
        if service.spec.mode.replicated:
            assert len(wanted) + len(spent) == service.spec.mode.replicated.replicas
        else:
            assert {task.node_id for task in wanted} | {node for _, _, node in spent} == set(
                self.cluster.hosts
            )
        policy = service.spec.task_template.restart_policy
        assert policy
        assert not spent or policy.condition is not RestartCondition.ANY

    def check_history(self) -> None:
        dead = Counter(slot_of(task) for task in self.objects.list(Task) if is_dead(task.status.state))
        assert all(number <= HISTORY for number in dead.values())

    @staticmethod
    def slots(tasks) -> set[SlotKey]:
        return {slot_of(task) for task in tasks}

    def wanted_slots(self, service: Service) -> set[SlotKey]:
        tasks = self.objects.tasks_of_service(service.id)
        return self.slots(task for task in tasks if task.desired_state <= TaskState.RUNNING)

    # -- what never breaks ---------------------------------------------------------------------------------

    @invariant()
    def a_slot_has_one_wanted_task(self) -> None:
        wanted = [t for t in self.objects.list(Task) if t.desired_state <= TaskState.RUNNING]
        assert len(self.slots(wanted)) == len(wanted)

    @invariant()
    def a_slot_runs_once(self) -> None:
        """But for containers on hosts that were taken for down and are not back under control; those of an
        exclusive service count even then."""
        running = Counter(
            slot_of(task)
            for host in self.cluster.hosts.values()
            for task_id in host.containers
            if task_id not in self.cluster.outlived and (task := self.objects.get(Task, task_id))
        )
        assert all(number == 1 for number in running.values())

    @invariant()
    def an_address_has_one_holder(self) -> None:
        holders = [
            *self.objects.list(Node),
            *(
                t
                for t in self.objects.list(Task)
                if min(t.status.state, t.desired_state) <= TaskState.RUNNING
            ),
        ]
        addresses = Counter(a for holder in holders for found in holder.attachments for a in found.addresses)
        assert all(number == 1 for number in addresses.values())

    @invariant()
    def accounting_never_drifts(self) -> None:
        assert self.cluster.accounting == Accounting.of(self.objects)

    @invariant()
    def no_node_is_overbooked(self) -> None:
        for found in self.cluster.accounting.list():
            assert found.node
            assert found.reserved_nano_cpus <= found.node.description.resources.nano_cpus


Orchestration.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestOrchestration = Orchestration.TestCase
