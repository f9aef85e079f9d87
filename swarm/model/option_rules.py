"""Whether a service's own options (`swarm.…` labels) fit the rest of its spec.

In: a decoded spec. Out: nothing, or `InvalidArgument` that names the option and the way out. What needs other
objects (a dependency that does not exist, the cluster's policy) is `swarm.manager.control`'s.
"""

from __future__ import annotations

from datetime import UTC, datetime

from swarm.base.errors import InvalidArgument
from swarm.model.cron import parse_cron, parse_zone
from swarm.model.options import Autoscale, Schedule, ServiceOptions, Strategy, service_options
from swarm.model.port_options import check_port_options
from swarm.model.specs import ServiceSpec
from swarm.model.types import UpdateOrder

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def check_service_options(spec: ServiceSpec) -> ServiceOptions:
    """The options, if they fit. Raises: InvalidArgument."""
    options = service_options(spec.labels)
    if options.schedule is not None:
        _check_schedule(spec, options.schedule)
    if options.autoscale is not None:
        _check_autoscale(spec, options.autoscale)
    if options.exclusive:
        _check_exclusive(spec, options)
    if options.rebalance:
        _check_rebalance(spec, options)
    check_port_options(options.ports, spec.endpoint_spec)
    return options


def _check_schedule(spec: ServiceSpec, schedule: Schedule) -> None:
    if not spec.mode.is_job:
        raise InvalidArgument("schedule can only be used with replicated-job or global-job mode")
    zone = parse_zone(schedule.timezone)
    if parse_cron(schedule.cron).next_after(LONG_AGO, zone) is None:
        raise InvalidArgument(f"invalid schedule {schedule.cron!r}: there is no such day")
    if schedule.history < 1:
        raise InvalidArgument("invalid schedule history 0: at least the last run is kept")


def _check_autoscale(spec: ServiceSpec, scale: Autoscale) -> None:
    if spec.mode.replicated is None:
        raise InvalidArgument("autoscale can only be used with replicated mode")
    resources = spec.task_template.resources
    if scale.memory_percent and not (resources and resources.limits.memory_bytes):
        raise InvalidArgument("autoscale by memory needs a memory limit: set --limit-memory")


def _check_rebalance(spec: ServiceSpec, options: ServiceOptions) -> None:
    if spec.mode.replicated is None:
        raise InvalidArgument("rebalance can only be used with replicated mode")
    placement = spec.task_template.placement
    if options.strategy is Strategy.BINPACK or (placement and placement.preferences):
        raise InvalidArgument(
            "rebalance evens tasks out: it goes with neither binpack nor placement preferences"
        )


def _check_exclusive(spec: ServiceSpec, options: ServiceOptions) -> None:
    orders = [config.order for config in (spec.update_config, spec.rollback_config) if config]
    if UpdateOrder.START_FIRST in orders:
        raise InvalidArgument(
            "an exclusive service cannot be updated start-first, which runs two copies: use stop-first"
        )
    if options.restart_overlap:
        raise InvalidArgument("an exclusive service cannot have restarts that overlap")


def refuse_change_of_exclusive(old: ServiceSpec, new: ServiceSpec) -> None:
    """Raises InvalidArgument: the tasks that run are, or are not, fenced by their hosts already."""
    if service_options(old.labels).exclusive != service_options(new.labels).exclusive:
        raise InvalidArgument(
            "a service cannot be made exclusive, or cease to be: remove the service and create it anew"
        )
