"""The orchestrators' entry: one service's id in, the plan that brings its tasks in line out.

The whole service is planned again from its stored state each time; there is nothing to remember in between.
Invariant: a service that is gone wants nothing, so all its tasks are to be removed.
"""

from __future__ import annotations

from datetime import datetime

from swarm.base.ids import IdSource, ServiceID
from swarm.manager.orchestrator.dependencies import waits_for
from swarm.manager.orchestrator.global_ import plan_global
from swarm.manager.orchestrator.jobs import plan_job
from swarm.manager.orchestrator.rebalance import plan_rebalance
from swarm.manager.orchestrator.replace import Work
from swarm.manager.orchestrator.replicated import plan_replicated
from swarm.manager.orchestrator.schedule import plan_schedule
from swarm.manager.orchestrator.slots import lower
from swarm.model.objects import Service, Task
from swarm.model.plan import Plan
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView


def plan_service(view: ClusterView, service_id: ServiceID, now: datetime, new_id: IdSource) -> Plan:
    """What to create, start, shut down or remove so that the service has the tasks it asks for."""
    service = view.get(Service, service_id)
    if service is None:
        return Plan.of(lower(view.tasks_of_service(service_id), TaskState.REMOVE))
    work = Work(view=view, service=service, now=now, new_id=new_id, waits_for=waits_for(view, service))
    if service.spec.mode.is_job:
        return plan_schedule(view, service, now) + plan_job(work)
    if service.spec.mode.replicated is not None:
        plan = plan_replicated(work, service.spec.mode.replicated)
        return plan if plan.ops else plan + plan_rebalance(view, service, now)
    return plan_global(work)


def list_service_ids(view: ClusterView) -> tuple[ServiceID, ...]:
    """Every service to plan when a leader starts: those that exist and those of which only tasks are left."""
    ids = dict.fromkeys(service.id for service in view.list(Service))
    ids.update(dict.fromkeys(task.service_id for task in view.list(Task)))
    return tuple(ids)
