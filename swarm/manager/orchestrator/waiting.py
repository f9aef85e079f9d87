"""When there is no use in waiting for a task any longer: nobody can take it, or it has had its time.

Invariant: what holds up others has a deadline (`swarm.update.progress-deadline`): nothing waits for ever.
"""

from __future__ import annotations

from datetime import datetime

from swarm.manager.orchestrator.slots import LONG_AGO
from swarm.model.objects import Service, Task
from swarm.model.options import service_options
from swarm.model.task_state import TaskState


def has_no_place(task: Task) -> bool:
    """No node, or no network, can take the task just now."""
    return task.status.state <= TaskState.PENDING and bool(task.status.err)


def late_at(service: Service, task: Task) -> datetime | None:
    """When the progress deadline of a task by itself is over; None where there is none."""
    limit = service_options(service.spec.labels).progress_deadline
    return (task.meta.created_at or LONG_AGO) + limit if limit else None


def is_late(service: Service, task: Task, now: datetime) -> bool:
    """It has had as long as the progress deadline says to come up."""
    at = late_at(service, task)
    return at is not None and at <= now
