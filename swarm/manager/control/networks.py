"""What creating or removing a network, or naming one in a service, makes of the cluster. Pure.

Invariant: a stored service names networks by their ids, and only such as there were; a network that a service
names is not removed. One that tasks still use is gone at once for its user, and for them when they are gone.
Source: SwarmKit manager/controlapi/network.go, service.go (validateNetworks).
"""

from __future__ import annotations

from dataclasses import replace

from swarm.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from swarm.base.ids import NetworkID
from swarm.manager.allocator.networks import find_overlap, find_same_number, users_of
from swarm.model.network_rules import validate_attachments, validate_network_spec
from swarm.model.networks import (
    BRIDGE,
    MACVLAN,
    PREDEFINED,
    find_ingress,
    find_network,
    list_networks,
    needs_ingress,
    vni_of,
)
from swarm.model.objects import Network, Node, Service
from swarm.model.specs import NetworkSpec, ServiceSpec
from swarm.model.types import PublishMode
from swarm.model.validation import validate_labels
from swarm.model.view import ClusterView


def new_network(view: ClusterView, spec: NetworkSpec, network_id: NetworkID) -> Network:
    """Raises: InvalidArgument, AlreadyExists, PermissionDenied for a predefined name."""
    if spec.name in PREDEFINED:
        raise PermissionDenied(f"operation is not permitted on predefined {spec.name} network")
    validate_network_spec(spec)
    validate_labels(spec.labels)
    others = list_networks(view)
    if any(other.spec.name == spec.name for other in others):
        raise AlreadyExists(f"network with name {spec.name} already exists")
    ingress = find_ingress(view)
    if spec.ingress and ingress is not None:
        raise AlreadyExists(f"ingress network ({ingress.id}) is already present")
    # What a removed network still holds is waited for: its stack may be deployed again without a pause.
    conflict = find_same_number(spec, others) or find_overlap(spec, others, view.list(Node))
    if conflict:
        raise InvalidArgument(conflict)
    is_free = not find_same_number(spec, view.list(Network))
    return Network(id=network_id, spec=spec, vni=vni_of(spec) if is_free else 0)


def removed_network(view: ClusterView, reference: str) -> Network:
    """The network as its user no longer has it; the leader deletes it when its last task is gone.

    Raises: NotFound, Ambiguous, FailedPrecondition while a service uses it, PermissionDenied.
    """
    network = find_network(view, reference)
    name = network.spec.name
    if network.id in PREDEFINED:
        raise PermissionDenied(f"{name} is a pre-defined network and cannot be removed")
    if network.is_removed:
        raise NotFound("network", reference)
    for service in users_of(view, network.id):
        raise FailedPrecondition(f"network {name} is in use by service {service.spec.name}")
    if network.spec.ingress:
        for service in view.list(Service):
            if needs_ingress(service.spec.endpoint_spec):
                raise FailedPrecondition(
                    f"ingress network cannot be removed because service {service.spec.name} depends on it"
                )
    return replace(network, is_removed=True)


def unused_networks(view: ClusterView) -> list[Network]:
    """What `network prune` may remove: no service names it, and it is not the ingress network."""
    return [
        network
        for network in list_networks(view)
        if not network.spec.ingress and not users_of(view, network.id)
    ]


def require_ingress(view: ClusterView, spec: ServiceSpec) -> None:
    """Raises FailedPrecondition where ports are to be published and no network is there to serve them."""
    if needs_ingress(spec.endpoint_spec) and find_ingress(view) is None:
        raise FailedPrecondition("service needs ingress network, but no ingress network is present")


def resolve_networks(view: ClusterView, spec: ServiceSpec) -> ServiceSpec:
    """`spec` with its networks by their ids.

    Raises:
        NotFound, Ambiguous: no such network.
        InvalidArgument: the service cannot be on it.
    """
    template = spec.task_template
    if not template.networks:
        return spec
    found = []
    is_bridged = any(wanted.target == BRIDGE for wanted in template.networks)
    for wanted in template.networks:
        network = find_network(view, wanted.target)
        if network.is_removed:
            raise NotFound("network", wanted.target)
        if network.spec.ingress:
            raise InvalidArgument(
                f'Service cannot be explicitly attached to the ingress network "{network.spec.name}"'
            )
        if network.spec.driver == MACVLAN and not is_bridged:
            _refuse_host_ports(network, spec)
        found.append(replace(wanted, target=network.id))
    resolved = replace(spec, task_template=replace(template, networks=tuple(found)))
    validate_attachments(resolved)
    return resolved


def _refuse_host_ports(network: Network, spec: ServiceSpec) -> None:
    """Answers to whoever came by the host would leave by the macvlan link, under another address."""
    ports = spec.endpoint_spec.ports if spec.endpoint_spec else ()
    if any(port.publish_mode is PublishMode.HOST for port in ports):
        raise InvalidArgument(
            f"tasks on macvlan network {network.spec.name} have their own way out, so that ports in host "
            f"mode do not reach them: leave out mode=host, or add --network {BRIDGE}"
        )
