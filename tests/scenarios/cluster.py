"""The whole core without a machine: planners over objects in memory, and agents that do as they are told.

Every write goes through `commit`, which refuses what a real store would refuse (a stale version) and fails on
what no component may ever do (a state that goes back, a task that moves, a step by the wrong owner).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from swarm.base.clock import FakeClock
from swarm.base.ids import ClusterID, NetworkID, NodeID, SequentialIds, ServiceID, TaskID
from swarm.manager.allocator.allocate import plan_allocation
from swarm.manager.fencing import plan_fenced
from swarm.manager.orchestrator.enforcer import plan_enforcement
from swarm.manager.orchestrator.reaper import plan_reaper
from swarm.manager.orchestrator.service import list_service_ids, plan_service
from swarm.model.exclusive import is_exclusive
from swarm.model.objects import Cluster, Network, Node, Service, StoredObject, Task, TaskStatus
from swarm.model.plan import Create, Delete, Op, Plan, Update, earliest
from swarm.model.specs import NetworkSpec, ReplicatedMode, ServiceMode
from swarm.model.task_state import DESIRED_STATES, Owner, TaskState, can_transition, is_dead
from swarm.model.types import Availability, Meta, NodeState, Version
from swarm.model.view import Objects
from swarm.scheduler.cluster import Accounting
from swarm.scheduler.schedule import plan_scheduling

MANY_ROUNDS = 60

SlotKey = tuple[ServiceID, int, NodeID]


@dataclass
class Host:
    """What is true on one machine, whatever the manager believes."""

    containers: set[TaskID] = field(default_factory=set)
    is_connected: bool = True
    is_stopping_slowly: bool = False


class PureCluster:
    def __init__(self, seed: int = 0) -> None:
        self.clock = FakeClock()
        self.started = self.clock.now()
        self.objects = Objects()
        self.accounting = Accounting()
        self.hosts: dict[NodeID, Host] = {}
        self.ends: dict[str, TaskStatus] = {}
        """Services or images whose tasks all end at once, and how."""
        self.slow: set[str] = set()
        """Images whose tasks do not come up."""
        self.outlived: set[TaskID] = set()
        """Tasks whose node was down since they started: only they may run beside a successor."""
        self.new_id = SequentialIds()
        self._revision = 0
        self._seed = seed
        self.commit(
            Owner.ORCHESTRATOR,
            [
                Create(object=Cluster(id=ClusterID("cluster"))),
                Create(
                    object=Network(id=NetworkID("ingress"), spec=NetworkSpec(name="ingress", ingress=True))
                ),
            ],
        )

    # -- the store -----------------------------------------------------------------------------------------

    def commit(self, owner: Owner, ops: Iterable[Op]) -> int:
        """Apply ops in order; one that was decided on an older version is dropped. Returns how many held."""
        return sum(1 for op in ops if self._commit_one(owner, op))

    def _commit_one(self, owner: Owner, op: Op) -> bool:
        stored = self.objects.get(type(op.object), op.object.id)
        if isinstance(op, Create):
            assert stored is None, f"{op.object.id} exists"
        elif stored is None or stored.meta.version != op.object.meta.version:
            return False
        if isinstance(op, Delete):
            self._check_removal(stored)
            self.objects.remove(type(op.object), op.object.id)
            self.accounting.apply(stored, None)
            return True
        if isinstance(op.object, Task):
            check_step(owner, stored if isinstance(stored, Task) else None, op.object)
        self._revision += 1
        version = Version(index=self._revision)
        meta = replace(
            op.object.meta, version=version, created_at=op.object.meta.created_at or self.clock.now()
        )
        new: StoredObject = replace(op.object, meta=meta)
        self.objects.put(new)
        self.accounting.apply(stored, new)
        return True

    def _check_removal(self, stored: StoredObject | None) -> None:
        """A record may go only when no agent that can be reached has the task."""
        if isinstance(stored, Task) and TaskState.ASSIGNED <= stored.status.state <= TaskState.RUNNING:
            node = self.objects.get(Node, stored.node_id)
            assert node is None or node.status.state is NodeState.DOWN

    def write(self, item: StoredObject, owner: Owner = Owner.AGENT) -> None:
        """One object as a user, an agent or the dispatcher writes it."""
        exists = self.objects.get(type(item), item.id) is not None
        assert self.commit(owner, [Update(object=item) if exists else Create(object=item)])

    # -- the leader ----------------------------------------------------------------------------------------

    def planners(self) -> list[tuple[Owner, Callable[[], Plan]]]:
        now = self.clock.now()
        rng = Random(self._seed)
        services = [
            (Owner.ORCHESTRATOR, lambda found=found: plan_service(self.objects, found, now, self.new_id))
            for found in list_service_ids(self.objects)
        ]
        return [
            *services,
            (Owner.ALLOCATOR, lambda: plan_allocation(self.objects, now)),
            (Owner.SCHEDULER, lambda: plan_scheduling(self.objects, now, rng, self.accounting)),
            (Owner.ORCHESTRATOR, lambda: plan_reaper(self.objects)),
            *(
                (Owner.ENFORCER, lambda node=node: plan_enforcement(self.objects, node.id))
                for node in self.objects.list(Node)
            ),
        ]

    def lead(self, prefix: int | None = None) -> tuple[bool, datetime | None]:
        """Plan and apply once, of each plan its first `prefix` ops. Returns (changed, wake_at)."""
        changed, wake_at = 0, None
        for owner, planner in self.planners():
            plan = planner()
            changed += self.commit(owner, plan.ops[:prefix])
            wake_at = earliest(wake_at, plan.wake_at)
        return bool(changed), wake_at

    def settle(self) -> datetime | None:
        """Lead and let the agents act until nothing changes any more."""
        for _ in range(MANY_ROUNDS):
            changed, wake_at = self.lead()
            if not self.act() and not changed:
                return wake_at
        raise AssertionError("the cluster does not come to rest")

    def tick(self, by: timedelta) -> None:
        """Let time pass, waking when the plans ask for it."""
        end = self.clock.now() + by
        while True:
            wake_at = self.settle()
            until = min(wake_at or end, end)
            if until <= self.clock.now():
                return
            self.clock.advance(until - self.clock.now())

    # -- the agents ----------------------------------------------------------------------------------------

    def act(self) -> bool:
        """Every connected agent takes its tasks as far as they are wanted and reports."""
        changed = False
        for node_id, host in self.hosts.items():
            if host.is_connected:
                tasks = [
                    t for t in self.objects.tasks_on_node(node_id) if t.status.state >= TaskState.ASSIGNED
                ]
                host.containers &= {task.id for task in tasks}
                for task in tasks:
                    changed |= self._advance(host, task)
        return changed

    def _advance(self, host: Host, task: Task) -> bool:
        if is_dead(task.status.state):
            host.containers.discard(task.id)
            return False
        status = self._next_status(host, task)
        if status is None:
            return False
        if status.state is TaskState.RUNNING:
            host.containers.add(task.id)
        elif is_dead(status.state):
            host.containers.discard(task.id)
        self.write(replace(task, status=status))
        return True

    def _next_status(self, host: Host, task: Task) -> TaskStatus | None:
        now, state = self.clock.now(), task.status.state
        is_running = state is TaskState.RUNNING
        if task.desired_state > TaskState.RUNNING:
            if is_running and host.is_stopping_slowly and task.id in host.containers:
                return None
            return TaskStatus(timestamp=now, state=TaskState.SHUTDOWN, message="shutdown")
        if is_running:
            is_lost = task.id not in host.containers
            return TaskStatus(timestamp=now, state=TaskState.FAILED, err="host was off") if is_lost else None
        image = task.spec.container_spec.image
        end = self.ends.get(task.service_name) or self.ends.get(image)
        if image in self.slow and task.desired_state is TaskState.RUNNING:
            return TaskStatus(timestamp=now, state=TaskState.STARTING) if state < TaskState.STARTING else None
        if end and end.state is TaskState.REJECTED:
            return replace(end, timestamp=now)
        if task.desired_state is TaskState.RUNNING:
            return replace(end, timestamp=now) if end else running_at(now)
        if state < TaskState.READY:
            return TaskStatus(timestamp=now, state=TaskState.READY, message="prepared")
        return None

    # -- what happens to it --------------------------------------------------------------------------------

    def add_node(self, node: Node) -> None:
        self.write(replace(node, meta=Meta(created_at=self.clock.now())))
        self.hosts[node.id] = Host()

    def end_task(self, task: Task, state: TaskState, err: str = "") -> None:
        """The task's process ends by itself (or the agent gives up on it)."""
        status = TaskStatus(timestamp=self.clock.now(), state=state, err=err)
        self.hosts[task.node_id].containers.discard(task.id)
        self.write(replace(task, status=status))

    def set_node_state(self, node_id: NodeID, state: NodeState, *, power_cut: bool = False) -> None:
        node, host = self.objects.get(Node, node_id), self.hosts[node_id]
        assert node is not None
        if power_cut:
            host.containers.clear()
        host.is_connected = state is NodeState.READY
        if state is NodeState.DOWN:
            tasks = self.objects.tasks_on_node(node_id)
            self.outlived |= {task.id for task in tasks if not is_exclusive(task)}
        self.write(replace(node, status=replace(node.status, state=state, changed_at=self.clock.now())))

    def remove_node(self, node_id: NodeID) -> None:
        """As the control API does it: its tasks are orphaned with it."""
        node = self.objects.get(Node, node_id)
        assert node is not None
        for task in self.objects.tasks_on_node(node_id):
            if not is_dead(task.status.state) and not is_exclusive(task):
                status = TaskStatus(timestamp=self.clock.now(), state=TaskState.ORPHANED)
                self.write(replace(task, status=status), Owner.DISPATCHER)
        self.commit(Owner.DISPATCHER, [Delete(object=node)])
        del self.hosts[node_id]

    def fence(self, *node_ids: NodeID) -> None:
        """Lost nodes' time is over: the hosts have killed their exclusive tasks, and the leader knows."""
        for node_id in node_ids:
            if host := self.hosts.get(node_id):
                host.containers -= {t.id for t in self.objects.tasks_on_node(node_id) if is_exclusive(t)}
        self.commit(Owner.DISPATCHER, plan_fenced(self.objects, frozenset(node_ids), self.clock.now()).ops)

    def set_availability(self, node_id: NodeID, availability: Availability) -> None:
        node = self.objects.get(Node, node_id)
        if node is not None:
            self.write(replace(node, spec=replace(node.spec, availability=availability)))

    def scale(self, service: Service, replicas: int) -> None:
        mode = ServiceMode(replicated=ReplicatedMode(replicas=replicas))
        self.write(replace(service, spec=replace(service.spec, mode=mode)))

    def remove_service(self, service_id: ServiceID) -> None:
        service = self.objects.get(Service, service_id)
        assert service is not None
        self.commit(Owner.ORCHESTRATOR, [Delete(object=service)])


def slot_of(task: Task) -> SlotKey:
    return task.service_id, task.slot, NodeID("") if task.slot else task.node_id


def running_at(now: datetime) -> TaskStatus:
    return TaskStatus(timestamp=now, state=TaskState.RUNNING, message="started")


def check_step(owner: Owner, old: Task | None, new: Task) -> None:
    """What may happen to a task in one write, and by whom."""
    assert new.status.state is not TaskState.REMOVE
    assert new.desired_state in DESIRED_STATES
    is_without_node = new.status.state < TaskState.ASSIGNED or new.status.state is TaskState.SHUTDOWN
    assert is_without_node or new.node_id
    if old is None:
        assert new.status.state is TaskState.NEW
        return
    assert old.spec == new.spec
    assert new.node_id == old.node_id or (owner is Owner.SCHEDULER and not old.node_id)
    assert new.desired_state >= old.desired_state
    assert new.desired_state == old.desired_state or owner is Owner.ORCHESTRATOR
    if new.status.state != old.status.state:
        assert can_transition(owner, old.status.state, new.status.state), (owner, old.status, new.status)
