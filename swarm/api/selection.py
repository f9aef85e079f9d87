"""Which of the cluster's objects a list request asks for: a view and filters in, objects out. Pure.

Values of one key are alternatives, keys are conditions, labels are conditions each. Names and ids match by
prefix. Source: moby daemon/cluster/filters.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from swarm.api.filters import Filters, has_labels, has_prefix, is_one_of
from swarm.base.errors import InvalidArgument, NotFound
from swarm.base.ids import NodeID, ServiceID
from swarm.model.networks import PREDEFINED, list_networks, scope_of
from swarm.model.objects import Config, Network, Node, Secret, Service, Task
from swarm.model.specs import ServiceMode
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import NodeState
from swarm.model.view import ClusterView, find

Named = TypeVar("Named", Service, Node)
Kept = TypeVar("Kept", Secret, Config)

NODE_FILTERS = frozenset({"id", "label", "membership", "name", "node.label", "role"})
SERVICE_FILTERS = frozenset({"id", "label", "mode", "name", "runtime"})
TASK_FILTERS = frozenset(
    {"_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"}
)
NETWORK_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
SECRET_FILTERS = frozenset({"id", "label", "name", "names"})
CONFIG_FILTERS = frozenset({"id", "label", "name"})

_TRUE = frozenset({"1", "t", "true"})


def select_nodes(view: ClusterView, filters: Filters) -> list[Node]:
    return [
        node
        for node in view.list(Node)
        if has_prefix(filters.get("id"), node.id)
        and has_prefix(filters.get("name"), node.description.hostname)
        and has_labels(filters.get("label"), node.description.engine.labels)
        and has_labels(filters.get("node.label"), node.spec.labels)
        and is_one_of(filters.get("role"), node.spec.role)
        and is_one_of(filters.get("membership"), "accepted")
    ]


def select_services(view: ClusterView, filters: Filters) -> list[Service]:
    return [
        service
        for service in view.list(Service)
        if has_prefix(filters.get("id"), service.id)
        and has_prefix(filters.get("name"), service.spec.name)
        and has_labels(filters.get("label"), service.spec.labels)
        and is_one_of(filters.get("mode"), mode_word(service.spec.mode))
        and is_one_of(filters.get("runtime"), "container")
    ]


def select_tasks(view: ClusterView, filters: Filters) -> list[Task]:
    wanted_states = _desired_states(filters)
    only_current = any(value in _TRUE for value in filters.get("_up-to-date", ()))
    matches: list[Callable[[Task], bool]] = [
        lambda task: has_prefix(filters.get("id"), task.id),
        lambda task: has_prefix(filters.get("name"), task.name),
        lambda task: has_labels(filters.get("label"), task.service_labels),
        lambda task: is_one_of(filters.get("runtime"), "container"),
        lambda task: not wanted_states or task.desired_state in wanted_states,
        lambda task: not only_current or _is_up_to_date(view, task),
    ]
    used = [match for key, match in zip(_TASK_KEYS, matches, strict=True) if key in filters]
    return [task for task in _candidates(view, filters) if all(match(task) for match in used)]


_TASK_KEYS = ("id", "name", "label", "runtime", "desired-state", "_up-to-date")


def _candidates(view: ClusterView, filters: Filters) -> Iterable[Task]:
    """Tasks by the indexed keys, service and node; names are read as ids are."""
    services, nodes = filters.get("service"), filters.get("node")
    if services:
        ids = [ServiceID(_id_of(view, Service, text)) for text in services]
        wanted_nodes = [_id_of(view, Node, text) for text in nodes or ()]
        found = [task for service_id in dict.fromkeys(ids) for task in view.tasks_of_service(service_id)]
        return [task for task in found if not nodes or task.node_id in wanted_nodes]
    if nodes:
        node_ids = [NodeID(_id_of(view, Node, text)) for text in nodes]
        return [task for node_id in dict.fromkeys(node_ids) for task in view.tasks_on_node(node_id)]
    return view.list(Task)


def _id_of(view: ClusterView, kind: type[Named], text: str) -> str:
    """The id meant; a removed service's tasks are still asked for by its id."""
    try:
        return find(view, kind, text).id
    except NotFound:
        return text


def _desired_states(filters: Filters) -> frozenset[TaskState]:
    found: set[TaskState] = set()
    for word in filters.get("desired-state", ()):
        try:
            found.add(TaskState.from_word(word))
        except KeyError:
            raise InvalidArgument(f"invalid filter 'desired-state={word}'") from None
    return frozenset(found)


def _is_up_to_date(view: ClusterView, task: Task) -> bool:
    service = view.get(Service, task.service_id)
    return service is not None and service.spec_version == task.spec_version


def select_networks(view: ClusterView, filters: Filters, local: Iterable[Network] = ()) -> list[Network]:
    """Of the cluster's, the predefined ones, and `local`, which are this node's own."""
    in_use = {a.network_id for t in view.list(Task) if not is_dead(t.status.state) for a in t.attachments}
    return [
        network
        for network in (*PREDEFINED.values(), *local, *list_networks(view))
        if has_prefix(filters.get("id"), network.id)
        and any(name in network.spec.name for name in filters.get("name", ("",)))
        and has_labels(filters.get("label"), network.spec.labels)
        and is_one_of(filters.get("driver"), network.spec.driver)
        and is_one_of(filters.get("scope"), scope_of(network))
        and is_one_of(filters.get("type"), "builtin" if _is_builtin(network) else "custom")
        and _is_wanted(filters.get("dangling"), is_true=not _is_builtin(network) and network.id not in in_use)
    ]


def select_payloads(view: ClusterView, kind: type[Kept], filters: Filters) -> list[Kept]:
    """Secrets or configs; `names` are whole ones."""
    return [
        item
        for item in view.list(kind)
        if has_prefix(filters.get("id"), item.id)
        and has_prefix(filters.get("name"), item.spec.name)
        and is_one_of(filters.get("names"), item.spec.name)
        and has_labels(filters.get("label"), item.spec.labels)
    ]


def _is_builtin(network: Network) -> bool:
    return network.spec.ingress or network.id in PREDEFINED


def _is_wanted(values: tuple[str, ...] | None, *, is_true: bool) -> bool:
    """`dangling=true` and the like."""
    return not values or is_true in {value.lower() in _TRUE for value in values}


def mode_word(mode: ServiceMode) -> str:
    """The mode as users write it."""
    if mode.replicated_job is not None:
        return "replicated-job"
    if mode.global_job is not None:
        return "global-job"
    return "global" if mode.global_ is not None else "replicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCounts:
    running: int
    desired: int
    completed: int = 0
    """Of a job: of its current iteration."""


def count_tasks(view: ClusterView, service: Service) -> ServiceCounts:
    """What `service ls` shows: tasks that run on nodes that answer, and how many there should be."""
    if service.spec.mode.is_job:
        return _count_job(view, service)
    tasks = [t for t in view.tasks_of_service(service.id) if t.desired_state <= TaskState.RUNNING]
    running = sum(_is_running(view, task) for task in tasks)
    if service.spec.mode.replicated is not None:
        return ServiceCounts(running=running, desired=service.spec.mode.replicated.replicas)
    return ServiceCounts(running=running, desired=len(tasks))


def _count_job(view: ClusterView, service: Service) -> ServiceCounts:
    """Of the current iteration; what is desired falls as the last completions come in."""
    status = service.job_status
    tasks = [
        task
        for task in view.tasks_of_service(service.id)
        if status is not None and task.job_iteration == status.job_iteration
    ]
    completed = sum(task.status.state is TaskState.COMPLETE for task in tasks)
    wanted = [t for t in tasks if t.desired_state <= TaskState.COMPLETE and not is_dead(t.status.state)]
    job = service.spec.mode.replicated_job
    desired = len(wanted)
    if job is not None:
        at_once = 1 if job.max_concurrent is None else job.max_concurrent
        total = at_once if job.total_completions is None else job.total_completions
        desired = max(min(at_once, total - completed), 0)
    running = sum(_is_running(view, task) for task in wanted)
    return ServiceCounts(running=running, desired=desired, completed=completed)


def _is_running(view: ClusterView, task: Task) -> bool:
    """On a node that answers."""
    node = view.get(Node, task.node_id)
    is_lost = node is None or node.status.state is NodeState.DOWN
    return task.status.state is TaskState.RUNNING and not is_lost
