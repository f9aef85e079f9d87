"""Published ports: a service's spec and the other services in, the ports that it really gets out.

Invariant: no two services answer on one ingress port of one protocol, and an ingress port is nobody's
host-mode port, since every host answers on it. A port given dynamically stays for as long as it is asked for.
Source: SwarmKit manager/controlapi/service.go (checkPortConflicts), manager/allocator/portallocator.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from swarm.base.errors import FailedPrecondition, InvalidArgument
from swarm.base.ids import ServiceID
from swarm.model.defaults import DYNAMIC_PORTS
from swarm.model.objects import Service
from swarm.model.specs import ServiceSpec
from swarm.model.types import Endpoint, EndpointSpec, PortConfig, Protocol, PublishMode
from swarm.model.view import ClusterView

PortKey = tuple[Protocol, int]


def allocate_ports(view: ClusterView, spec: ServiceSpec, service_id: ServiceID | None) -> Endpoint:
    """The endpoint for `spec`, of the service `service_id` or of a new one.

    Raises:
        InvalidArgument: a port is taken or asked for twice, or the mode cannot have it.
        FailedPrecondition: every dynamic port is taken.
    """
    wanted = spec.endpoint_spec or EndpointSpec()
    _check_spec(wanted)
    others = [service for service in view.list(Service) if service.id != service_id]
    for port in wanted.ports:
        _check_free(port, others)
    current = view.get(Service, service_id) if service_id else None
    before = current.endpoint if current else Endpoint()
    taken = {_key(port) for service in others for port in service.endpoint.ports}
    taken |= {_key(port) for port in wanted.ports}
    ports: list[PortConfig] = []
    for port in wanted.ports:
        given = replace(port, published_port=_published(port, before, taken))
        taken.add(_key(given))
        ports.append(given)
    return Endpoint(
        spec=replace(wanted, mode=wanted.mode or "vip"), ports=tuple(ports), virtual_ips=before.virtual_ips
    )


def _key(port: PortConfig) -> PortKey:
    return port.protocol, port.published_port


def _check_spec(wanted: EndpointSpec) -> None:
    if wanted.mode == "dnsrr" and any(port.publish_mode is PublishMode.INGRESS for port in wanted.ports):
        raise InvalidArgument("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
    seen: set[PortKey] = set()
    for port in wanted.ports:
        if port.published_port and _key(port) in seen:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        seen.add(_key(port))


def _check_free(port: PortConfig, others: list[Service]) -> None:
    for service in others:
        for theirs in _conflicts(port, service):
            how = "an ingress port" if theirs.publish_mode is PublishMode.INGRESS else "a host-published port"
            raise InvalidArgument(
                f"port '{port.published_port}' is already in use by service '{service.spec.name}' "
                f"({service.id}) as {how}"
            )


def _conflicts(port: PortConfig, service: Service) -> Iterator[PortConfig]:
    """Two services may share a host-mode port: the scheduler keeps them on different nodes."""
    if not port.published_port:
        return
    for theirs in service.endpoint.ports:
        if _key(theirs) == _key(port) and PublishMode.INGRESS in (port.publish_mode, theirs.publish_mode):
            yield theirs


def _published(port: PortConfig, before: Endpoint, taken: set[PortKey]) -> int:
    if port.published_port or port.publish_mode is PublishMode.HOST:
        return port.published_port
    was_dynamic = {_shape(asked) for asked in before.spec.ports if not asked.published_port}
    kept = [given.published_port for given in before.ports if _shape(given) == _shape(port)]
    candidates = [*kept, *DYNAMIC_PORTS] if _shape(port) in was_dynamic else list(DYNAMIC_PORTS)
    for number in candidates:
        if (port.protocol, number) not in taken:
            return number
    raise FailedPrecondition(
        f"no {port.protocol} port is free from {DYNAMIC_PORTS[0]} to {DYNAMIC_PORTS[-1]}: "
        "name a published port"
    )


def _shape(port: PortConfig) -> tuple[str, Protocol, int, PublishMode]:
    """What a port is, apart from the number it is published at."""
    return port.name, port.protocol, port.target_port, port.publish_mode
