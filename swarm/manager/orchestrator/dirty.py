"""Whether a task is as its service's template has it now.

Invariant: a change that no container would notice makes no task dirty: pull options, a default spelt out,
or a placement that the task's node meets as well. A new version of a secret or config that the service
follows is one that they do notice.
Source: SwarmKit manager/orchestrator/task.go (IsTaskDirty).
"""

from __future__ import annotations

from enum import StrEnum

from swarm.manager.orchestrator.slots import Judge
from swarm.model.constraint import satisfies
from swarm.model.objects import Node, Service, Task
from swarm.model.payload_versions import versions_of, with_versions
from swarm.model.specs import TaskSpec
from swarm.model.template import same_but_for_placement, same_endpoint, same_template
from swarm.model.view import ClusterView
from swarm.scheduler.filters import placement_of


class Difference(StrEnum):
    NONE = "none"
    PLACEMENT = "placement"
    ALL = "all"


def is_dirty(view: ClusterView, service: Service, task: Task) -> bool:
    """`outdated_by` for a single task."""
    return outdated_by(view, service)(task)


def outdated_by(view: ClusterView, service: Service) -> Judge:
    """Tells whether a task of the service has to be replaced for it to be as it was asked for.

    Tasks of one `spec_version` are made from one template, and differ in the versions of secrets and configs
    only: each kind of them is compared once.
    """
    template = with_versions(view, service.spec.task_template)
    wanted = versions_of(template)
    found: dict[object, Difference] = {}

    def is_outdated(task: Task) -> bool:
        has = versions_of(task.spec)
        if task.spec_version.index == service.spec_version.index:
            return has != wanted
        kind = task.spec_version.index, has
        if kind not in found:
            found[kind] = _compare(service, template, task)
        if found[kind] is Difference.PLACEMENT:
            return not _meets_constraints(view, service, task)
        return found[kind] is Difference.ALL

    return is_outdated


def _compare(service: Service, template: TaskSpec, task: Task) -> Difference:
    endpoint = service.endpoint
    if task.endpoint.ports != endpoint.ports or not same_endpoint(task.endpoint.spec, endpoint.spec):
        return Difference.ALL
    if same_template(template, task.spec):
        return Difference.NONE
    return Difference.PLACEMENT if same_but_for_placement(template, task.spec) else Difference.ALL


def _meets_constraints(view: ClusterView, service: Service, task: Task) -> bool:
    node = view.get(Node, task.node_id) if task.node_id else None
    return node is not None and satisfies(placement_of(service.spec.task_template).constraints, node)
