"""Anything may happen, and leaders may die after any write: what never breaks, and what always recovers.

I1-I5 and I9 of the design's invariants, on the pure cluster (whose `commit` checks each single step).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swarm.base.ids import NodeID, ServiceID
from swarm.manager.control.services import changed_service, resumed, rolled_back_service
from swarm.manager.orchestrator.rollout import PAUSED, is_under_way
from swarm.model.objects import Network, Node, NodeStatus, Service, Task, TaskStatus
from swarm.model.specs import (
    ContainerSpec,
    GlobalMode,
    NodeSpec,
    ReplicatedMode,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import (
    Availability,
    Endpoint,
    EndpointSpec,
    FailureAction,
    IPAMConfig,
    NodeDescription,
    NodeState,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    UpdateConfig,
    UpdateOrder,
    Version,
)
from swarm.scheduler.cluster import Accounting
from tests.scenarios.cluster import PureCluster, SlotKey, slot_of

NODES = [NodeID(name) for name in ("n1", "n2", "n3", "n4")]
SERVICES = [ServiceID(name) for name in ("a", "b", "c", "x")]
EXCLUSIVE = "x"
HISTORY = 5
IMAGES = ["web:1", "web:2", "web:3"]
ENDS = [TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED]
RESERVED = 1_000_000_000
"""Of each task. A node has 11 times that: too little for everything, enough where four nodes share it."""


def template(condition: RestartCondition) -> TaskSpec:
    return TaskSpec(
        container_spec=ContainerSpec(image=IMAGES[0]),
        placement=Placement(constraints=("node.labels.bad!=yes",)),
        restart_policy=RestartPolicy(condition=condition, delay=timedelta(seconds=2)),
        resources=ResourceRequirements(reservations=Resources(nano_cpus=RESERVED)),
    )


class Orchestration(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = PureCluster()
        self.surging: set[ServiceID] = set()
        """Services whose update order has been start-first."""
        network = self.objects.list(Network)[0]
        self.cluster.write(
            replace(network, spec=replace(network.spec, ipam=(IPAMConfig(subnet="10.0.0.0/26"),)))
        )
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
        ports = (PortConfig(target_port=80, published_port=8000 + SERVICES.index(service_id)),)
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

    @rule(
        service_id=st.sampled_from(SERVICES),
        image=st.sampled_from(IMAGES),
        order=st.sampled_from(UpdateOrder),
        parallelism=st.integers(0, 2),
        action=st.sampled_from(FailureAction),
    )
    def update(self, service_id, image, order, parallelism, action) -> None:
        service = self.objects.get(Service, service_id)
        if service is None:
            return
        if service_id == EXCLUSIVE:
            order = UpdateOrder.STOP_FIRST
        container = replace(service.spec.task_template.container_spec, image=image)
        config = UpdateConfig(order=order, parallelism=parallelism, failure_action=action)
        rollback = replace(config, failure_action=FailureAction.PAUSE)
        spec = replace(
            service.spec,
            task_template=replace(service.spec.task_template, container_spec=container),
            update_config=config,
            rollback_config=rollback,
        )
        changed = changed_service(self.objects, service, spec, "", self.cluster.clock.now())
        if order is UpdateOrder.START_FIRST:
            self.surging.add(service_id)
        if changed is not service:
            self.cluster.write(changed)

    @rule(service_id=st.sampled_from(SERVICES))
    def roll_back(self, service_id) -> None:
        service = self.objects.get(Service, service_id)
        if service and service.previous_spec:
            self.cluster.write(rolled_back_service(self.objects, service, self.cluster.clock.now()))

    @rule(service_id=st.sampled_from(SERVICES))
    def resume(self, service_id) -> None:
        service = self.objects.get(Service, service_id)
        if service and service.update_status and service.update_status.state in PAUSED:
            self.cluster.write(resumed(service))

    @rule(name=st.sampled_from(NODES), label=st.sampled_from(["yes", "no"]))
    def label_node(self, name, label) -> None:
        node = self.objects.get(Node, name)
        if node:
            self.cluster.write(replace(node, spec=replace(node.spec, labels={"bad": label})))

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

    @rule(image=st.sampled_from(IMAGES), end=st.sampled_from([None, *ENDS]))
    def spoil_image(self, image, end) -> None:
        """From now on all tasks of the image end so, or come up."""
        self.cluster.ends.pop(image, None)
        if end is not None:
            self.cluster.ends[image] = TaskStatus(state=end, err="spoilt")

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
        self.cluster.ends.clear()
        for name in list(self.cluster.hosts):
            self.label_node(name, "no")
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
        assert not is_under_way(service)
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
    def a_slot_has_one_wanted_task_and_one_to_follow(self) -> None:
        wanted = [t for t in self.objects.list(Task) if t.desired_state <= TaskState.RUNNING]
        assert all(number <= 2 for number in Counter(slot_of(task) for task in wanted).values())

    @invariant()
    def a_slot_runs_once(self) -> None:
        """But for containers on hosts that were taken for down and are not back under control; those of an
        exclusive service count even then. With start-first the next one may run beside it."""
        running = Counter(
            slot_of(task)
            for host in self.cluster.hosts.values()
            for task_id in host.containers
            if task_id not in self.cluster.outlived and (task := self.objects.get(Task, task_id))
        )
        assert all(number <= 1 + (slot[0] in self.surging) for slot, number in running.items())

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
)
TestOrchestration = Orchestration.TestCase
