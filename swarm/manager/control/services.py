"""What an update, a rollback or a resumption makes of a stored service. Pure; `Control` writes the result.

Invariant: `spec_version` changes only when the template or the published ports do, so that nothing else makes
new tasks; `update_status` is empty when such a change begins, and the leader fills it in.
Unlike Swarm, a change of scale or labels leaves an update that is under way, or paused, as it is, and leaves
it the spec that it would be rolled back to.
Source: SwarmKit manager/controlapi/service.go (UpdateService).
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime

from swarm.base.errors import FailedPrecondition, InvalidArgument, Unsupported
from swarm.manager.allocator.ports import allocate_ports
from swarm.manager.control.networks import require_ingress, resolve_networks
from swarm.manager.control.payloads import refuse_missing
from swarm.manager.orchestrator.dependencies import refuse_dependencies
from swarm.manager.orchestrator.rollout import PAUSED, UNDER_WAY, rolled_back
from swarm.manager.orchestrator.schedule import next_job_status
from swarm.model.objects import Cluster, Service
from swarm.model.option_rules import refuse_change_of_exclusive
from swarm.model.options import allowed, container_options, refuse_forbidden
from swarm.model.specs import ServiceMode, ServiceSpec
from swarm.model.template import same_endpoint, same_template
from swarm.model.types import Protocol, UpdateState, UpdateStatus
from swarm.model.validation import validate_service_spec
from swarm.model.view import ClusterView

FROM_SPEC = "spec"
FROM_PREVIOUS = "previous-spec"


def validate_service(view: ClusterView, spec: ServiceSpec) -> None:
    """Every rule that needs no other version of the service. Raises: InvalidArgument, FailedPrecondition."""
    validate_service_spec(spec)
    clusters = view.list(Cluster)
    for cluster in clusters:
        _refuse_data_path_port(spec, cluster.data_path_port)
    policy = allowed(clusters[0].spec.labels) if clusters else frozenset[str]()
    refuse_forbidden(container_options(spec.task_template.container_spec.labels), policy)
    refuse_dependencies(view, spec)
    refuse_missing(view, spec.task_template.container_spec)
    require_ingress(view, spec)


def _refuse_data_path_port(spec: ServiceSpec, data_path_port: int) -> None:
    for port in spec.endpoint_spec.ports if spec.endpoint_spec else ():
        if port.protocol is Protocol.UDP and port.published_port in (data_path_port, data_path_port + 1):
            raise InvalidArgument(f"port {port.published_port}/udp is the swarm's own: publish another one")


def changed_service(
    view: ClusterView, service: Service, spec: ServiceSpec, auth_from: str, now: datetime
) -> Service:
    """`service` with `spec`; the same object when nothing changes.

    Raises:
        Unsupported: another name or kind of mode.
        InvalidArgument: a rule is broken or a port is taken.
        FailedPrecondition: credentials are to come from a previous spec that there is not.
    """
    spec = resolve_networks(view, spec)
    validate_service(view, spec)
    _refuse_other_service(service.spec, spec)
    spec = _with_credentials(service, spec, auth_from)
    status = service.update_status
    is_open = status is not None and status.state in UNDER_WAY | PAUSED
    if spec == service.spec:
        return resumed(service) if status is not None and status.state in PAUSED else service
    is_same = same_template(spec.task_template, service.spec.task_template) and same_endpoint(
        spec.endpoint_spec, service.spec.endpoint_spec
    )
    changed = replace(
        service,
        spec=spec,
        spec_version=service.spec_version if is_same else service.meta.version,
        endpoint=allocate_ports(view, spec, service.id),
        job_status=next_job_status(service, spec, now),
    )
    if is_same and is_open and service.previous_spec is not None:
        return replace(changed, previous_spec=replace(service.previous_spec, mode=spec.mode))
    return replace(
        changed,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        update_status=status if is_same and is_open else None,
    )


def rolled_back_service(view: ClusterView, service: Service, now: datetime) -> Service:
    """The service with its previous spec, which becomes the one to roll back to.

    Raises:
        FailedPrecondition: there is none.
        InvalidArgument: its ports are taken meanwhile, or a secret or config of its is gone.
        NotFound: one of its networks is gone.
    """
    changed = rolled_back(view, service)
    refuse_missing(view, changed.spec.task_template.container_spec)
    resolve_networks(view, changed.spec)  # they may be gone meanwhile
    if service.spec.mode.is_job:
        return replace(changed, job_status=next_job_status(service, changed.spec, now))
    status = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, message="manually requested rollback")
    return replace(changed, update_status=status)


def resumed(service: Service) -> Service:
    """The paused update, or rollback, goes on. Raises: FailedPrecondition."""
    status = service.update_status
    if status is None or status.state not in PAUSED:
        raise FailedPrecondition(f"the update of service {service.spec.name} is not paused")
    if status.state is UpdateState.PAUSED:
        return replace(service, update_status=None)
    again = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, message="rollback resumed")
    return replace(service, update_status=again)


def _with_credentials(service: Service, spec: ServiceSpec, auth_from: str) -> ServiceSpec:
    """Credentials for pulling stay when an update brings none."""
    container = spec.task_template.container_spec
    if container.pull_options is not None:
        return spec
    if auth_from not in ("", FROM_SPEC, FROM_PREVIOUS):
        raise InvalidArgument(f"unsupported registryAuthFrom value: {auth_from}")
    source: ServiceSpec | None = service.spec
    if auth_from == FROM_PREVIOUS:
        source = service.previous_spec
    if source is None:
        raise FailedPrecondition(f"service {service.spec.name} does not have a previous spec")
    kept = source.task_template.container_spec.pull_options
    template = replace(spec.task_template, container_spec=replace(container, pull_options=kept))
    return replace(spec, task_template=template)


def _refuse_other_service(old: ServiceSpec, new: ServiceSpec) -> None:
    if new.name != old.name:
        raise Unsupported("renaming services is not supported")
    if _kind(new.mode) != _kind(old.mode):
        raise Unsupported("service mode change is not allowed")
    refuse_change_of_exclusive(old, new)


def _kind(mode: ServiceMode) -> tuple[str, ...]:
    return tuple(field.name for field in fields(mode) if getattr(mode, field.name) is not None)
