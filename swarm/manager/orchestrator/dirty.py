"""Whether a task is as its service's template has it now.

Invariant: a change that no container would notice makes no task dirty: pull options, a default spelt out,
or a placement that the task's node meets as well.
Source: SwarmKit manager/orchestrator/task.go (IsTaskDirty).
"""

from __future__ import annotations

from swarm.model.objects import Node, Service, Task
from swarm.model.template import same_but_for_placement, same_endpoint, same_template
from swarm.model.view import ClusterView
from swarm.scheduler.constraint import satisfies
from swarm.scheduler.filters import placement_of


def is_dirty(view: ClusterView, service: Service, task: Task) -> bool:
    """The task has to be replaced for the service to be as it was asked for."""
    if task.spec_version == service.spec_version:
        return False
    if task.endpoint.ports != service.endpoint.ports:
        return True
    if not same_endpoint(task.endpoint.spec, service.endpoint.spec):
        return True
    template = service.spec.task_template
    if same_template(template, task.spec):
        return False
    return not (same_but_for_placement(template, task.spec) and _meets_constraints(view, service, task))


def _meets_constraints(view: ClusterView, service: Service, task: Task) -> bool:
    node = view.get(Node, task.node_id) if task.node_id else None
    return node is not None and satisfies(placement_of(service.spec.task_template).constraints, node)
