"""`depends-on`: what a service's tasks wait for before they start.

The view and a service in; the reason to wait, or nothing, out. A task that waits is prepared (READY) and has
its place; it starts as soon as every dependency is as wanted.
Only a slot's first task waits: one that is replaced, because it failed or was updated, starts although a
dependency may be away just then, as the rest of its service goes on too.
Invariant: no service waits for itself, over however many others (`refuse_dependencies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from swarm.base.errors import InvalidArgument
from swarm.base.ids import ServiceID
from swarm.manager.orchestrator.jobs import is_finished
from swarm.model.objects import Service, Task
from swarm.model.options import Condition, Dependency, service_options
from swarm.model.specs import ServiceSpec
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView

_WANTED = {
    Condition.STARTED: "to be started",
    Condition.HEALTHY: "to be healthy",
    Condition.COMPLETED: "to be completed",
}


def waits_for(view: ClusterView, service: Service) -> str:
    """`waiting for service db to be healthy`, or nothing when the service's tasks may start."""
    for dependency in service_options(service.spec.labels).depends_on:
        if not _is_met(view, dependency):
            return f"waiting for service {dependency.service} {_WANTED[dependency.condition]}"
    return ""


def dependents_of(view: ClusterView, service_id: ServiceID) -> frozenset[ServiceID]:
    """The services that may have to be planned again when this one's tasks change."""
    service = view.get(Service, service_id)
    if service is None:
        return frozenset()
    return frozenset(
        other.id
        for other in view.list(Service)
        if other.spec.labels and service.spec.name in _names(other.spec)
    )


def refuse_dependencies(view: ClusterView, spec: ServiceSpec) -> None:
    """Raises InvalidArgument for a dependency that is not there, is never met, or leads back here."""
    for dependency in service_options(spec.labels).depends_on:
        found = view.named(Service, dependency.service)
        if not found and dependency.service != spec.name:
            raise InvalidArgument(
                f"service {spec.name} depends on service {dependency.service}, which does not exist: "
                "create that one first"
            )
        if dependency.condition is Condition.COMPLETED and not all(each.spec.mode.is_job for each in found):
            raise InvalidArgument(
                f"service {spec.name} waits for service {dependency.service} to be completed, "
                "but only a job completes: use started or healthy"
            )
    _refuse_cycle({each.spec.name: _names(each.spec) for each in view.list(Service)}, spec)


def _refuse_cycle(known: Mapping[str, tuple[str, ...]], spec: ServiceSpec) -> None:
    edges = {**known, spec.name: _names(spec)}
    path = _path_back(edges, spec.name)
    if path:
        raise InvalidArgument(f"services depend on each other in a circle: {' -> '.join(path)}")


def _path_back(edges: Mapping[str, Iterable[str]], start: str) -> list[str]:
    """A way from `start` to itself, or an empty list."""
    came_from: dict[str, str] = {}
    todo = [start]
    while todo:
        name = todo.pop()
        for following in edges.get(name, ()):
            if following == start:
                path = [start, name]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1] if name != start else [start, start]
            if following not in came_from:
                came_from[following] = name
                todo.append(following)
    return []


def _names(spec: ServiceSpec) -> tuple[str, ...]:
    return tuple(dependency.service for dependency in service_options(spec.labels).depends_on)


def _is_met(view: ClusterView, dependency: Dependency) -> bool:
    found = view.named(Service, dependency.service)
    if not found:
        return False
    service = found[0]
    if dependency.condition is Condition.COMPLETED:
        return service.spec.mode.is_job and is_finished(view, service)
    tasks = [t for t in view.tasks_of_service(service.id) if t.desired_state <= TaskState.RUNNING]
    if dependency.condition is Condition.STARTED:
        return any(TaskState.RUNNING <= task.status.state <= TaskState.COMPLETE for task in tasks)
    return _is_healthy(service, tasks)


def _is_healthy(service: Service, tasks: list[Task]) -> bool:
    """Every task that is wanted runs, at least one; one with a health check is RUNNING once it is healthy."""
    running = sum(task.status.state is TaskState.RUNNING for task in tasks)
    replicated = service.spec.mode.replicated
    return running >= max(replicated.replicas if replicated else len(tasks), 1)
