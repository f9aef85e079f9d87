"""Runs of scheduled jobs: when the next one is due, a new iteration of the job begins.

The service with its last execution and `now` in; the service's new job status, or when to look again, out.
Runs missed while no manager served are made up for by one; so are those that fell into a run which was not to
be joined by another (`forbid`).
Invariant: an iteration begins once. The write that begins it carries the version it was decided on.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from swarm.manager.orchestrator.jobs import is_finished
from swarm.model.cron import parse_cron, parse_zone
from swarm.model.objects import Service
from swarm.model.options import Concurrency, Schedule, service_options
from swarm.model.plan import Plan, Update
from swarm.model.specs import ServiceSpec
from swarm.model.types import JobStatus, Version
from swarm.model.view import ClusterView

LONGEST_SLEEP = timedelta(hours=1)
"""Alarms run by the monotonic clock: look again now and then, should the wall clock have been set."""


def first_job_status(spec: ServiceSpec, now: datetime) -> JobStatus | None:
    """Of a new service: a job begins at once, a scheduled one when its time comes."""
    if not spec.mode.is_job:
        return None
    return JobStatus(last_execution=None if service_options(spec.labels).schedule else now)


def next_job_status(service: Service, spec: ServiceSpec, now: datetime) -> JobStatus | None:
    """Of an updated service: a changed template runs anew, in a scheduled job only when it is forced."""
    status = service.job_status
    template, old = spec.task_template, service.spec.task_template
    if status is None or template == old:
        return status
    if service_options(spec.labels).schedule and template.force_update == old.force_update:
        return status
    return _next(status, now)


def plan_schedule(view: ClusterView, service: Service, now: datetime) -> Plan:
    """Begin the run that is due, or wait for it; nothing for a service without a schedule."""
    schedule = service_options(service.spec.labels).schedule
    status = service.job_status
    if schedule is None or status is None:
        return Plan()
    due = due_at(service, schedule)
    if due is None:
        return Plan()
    if due > now:
        return Plan(wake_at=min(due, now + LONGEST_SLEEP))
    is_busy = status.last_execution is not None and not is_finished(view, service)
    if is_busy and schedule.concurrency is Concurrency.FORBID:
        return Plan()
    return Plan.of([Update(object=replace(service, job_status=_next(status, now)))])


def due_at(service: Service, schedule: Schedule) -> datetime | None:
    """When the next run begins, past or to come; None if never."""
    since = service.job_status.last_execution if service.job_status else None
    since = since or service.meta.created_at
    return since and parse_cron(schedule.cron).next_after(since, parse_zone(schedule.timezone))


def _next(status: JobStatus, now: datetime) -> JobStatus:
    return JobStatus(job_iteration=Version(index=status.job_iteration.index + 1), last_execution=now)
