"""How many replicas a service that scales by itself should have.

A service, what its tasks use, and `now` in; the service with other replicas and the reason, or nothing, out.
The rule is the usual one: replicas in proportion to measured over target, at the busiest of the targets, and
none for a difference of a tenth.
Invariant: never outside of min and max, never twice within the cooldown, and never on what is not known: a
task that runs without a figure of the last seconds stops the decision.
Source: Kubernetes' description of its horizontal pod autoscaler, for the proportion and the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil

from swarm.base.ids import TaskID
from swarm.model.objects import ScalingStatus, Service, Task
from swarm.model.options import Autoscale, service_options
from swarm.model.plan import Plan, Update
from swarm.model.specs import ReplicatedMode, ServiceMode
from swarm.model.task_state import TaskState
from swarm.model.types import Resources
from swarm.model.view import ClusterView

TOLERANCE = 0.1
WARM_UP = timedelta(seconds=10)
"""What a task uses while it starts says nothing of its load."""
ONE_CORE = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one task used of late."""

    nano_cpus: int = 0
    """CPU time per time, over the last seconds: 10^9 is one core."""
    memory_bytes: int = 0


def plan_autoscale(view: ClusterView, service: Service, usage: Mapping[TaskID, Usage], now: datetime) -> Plan:
    """Change the service's replicas if its load asks for it; `wake_at` while a cooldown lasts."""
    scale = service_options(service.spec.labels).autoscale
    mode = service.spec.mode.replicated
    if scale is None or mode is None:
        return Plan()
    bounded = min(max(mode.replicas, scale.min), scale.max)
    if bounded != mode.replicas:
        return _resize(service, bounded, f"between {scale.min} and {scale.max} replicas are wanted", now)
    ready_at = _ready_at(service, scale)
    if ready_at is not None and ready_at > now:
        return Plan(wake_at=ready_at)
    tasks = [task for task in view.tasks_of_service(service.id) if _counts(task)]
    if len(tasks) < mode.replicas or any(_is_warming_up(task, now) for task in tasks):
        return Plan()
    if not tasks or any(task.id not in usage for task in tasks):
        return Plan()
    proposals = _proposals(service, scale, tasks, usage)
    if not proposals:
        return Plan()
    wanted, reason = max(proposals)
    wanted = min(max(wanted, scale.min), scale.max)
    return Plan() if wanted == mode.replicas else _resize(service, wanted, reason, now)


def _proposals(
    service: Service, scale: Autoscale, tasks: Sequence[Task], usage: Mapping[TaskID, Usage]
) -> list[tuple[int, str]]:
    """Replicas and reason, for each target that is set."""
    resources = service.spec.task_template.resources
    limits = resources.limits if resources else Resources()
    targets = (
        ("cpu", scale.cpu_percent, limits.nano_cpus or ONE_CORE, [usage[t.id].nano_cpus for t in tasks]),
        ("memory", scale.memory_percent, limits.memory_bytes, [usage[t.id].memory_bytes for t in tasks]),
    )
    found = []
    for name, target, whole, used in targets:
        if not target or not whole:
            continue
        percent = 100 * sum(used) / len(used) / whole
        is_near = abs(percent / target - 1) <= TOLERANCE
        replicas = len(tasks) if is_near else ceil(len(tasks) * percent / target)
        found.append((replicas, f"{name} at {percent:.0f}% of the limit, {target}% wanted"))
    return found


def _resize(service: Service, replicas: int, reason: str, now: datetime) -> Plan:
    mode = ServiceMode(replicated=ReplicatedMode(replicas=replicas))
    old = service.spec.mode.replicated
    message = f"scaled from {old.replicas if old else 0} to {replicas}: {reason}"
    scaled = replace(
        service,
        spec=replace(service.spec, mode=mode),
        scaling=ScalingStatus(at=now, replicas=replicas, message=message),
    )
    return Plan.of([Update(object=scaled)])


def _ready_at(service: Service, scale: Autoscale) -> datetime | None:
    """When the cooldown after the last decision is over."""
    last = service.scaling.at if service.scaling else None
    return last + scale.cooldown if last else None


def _counts(task: Task) -> bool:
    return task.desired_state <= TaskState.RUNNING and task.status.state is TaskState.RUNNING


def _is_warming_up(task: Task, now: datetime) -> bool:
    began = max(filter(None, (task.start_after, task.meta.created_at)), default=None)
    return began is not None and now - began < WARM_UP
