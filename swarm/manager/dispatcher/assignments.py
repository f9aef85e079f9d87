"""What each node must know, and how it differs from what the node was told last. Pure.

A node gets its own tasks (until their records are gone: their containers keep the logs), the secrets and
configs of those that have not ended, and the network state that lets it carry traffic: the networks it has
tasks on or a leg in, the endpoints and services on them, and published ports with their backends.
Invariant: a node is told of no task but its own, of no secret that none of them uses, and of no network that
it has nothing to do with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from swarm.base.ids import NodeID
from swarm.manager.dispatcher.discovery import bare_address, is_suspect, network_services, serving_tasks
from swarm.model.dataplane import (
    Backend,
    NetworkEndpoint,
    NetworkService,
    OverlayEndpoint,
    OverlayNetwork,
    PublishedPort,
    TunnelPeer,
)
from swarm.model.networks import is_encrypted, mtu_of
from swarm.model.objects import (
    Cluster,
    Config,
    Network,
    Node,
    Payload,
    Secret,
    Service,
    Task,
    payload_id,
)
from swarm.model.options import service_options
from swarm.model.payload_rules import references
from swarm.model.port_options import PortName, PortOptions
from swarm.model.specs import ConfigReference, SecretReference
from swarm.model.task_state import TaskState
from swarm.model.types import Encryption, PortConfig, PublishMode
from swarm.model.view import ClusterView

Item = (
    Task
    | Payload
    | OverlayNetwork
    | NetworkEndpoint
    | PublishedPort
    | NetworkService
    | Encryption
    | TunnelPeer
)
Items = Mapping[str, Item]


@dataclass(frozen=True, slots=True)
class Difference:
    updates: tuple[tuple[str, Item], ...]
    removals: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.updates or self.removals)


def difference(told: Items, now: Items) -> Difference:
    """What to tell a node that knows `told`. A task counts as changed when its desired state did."""
    updates = tuple((key, item) for key, item in now.items() if _changed(told.get(key), item))
    return Difference(updates, tuple(key for key in told if key not in now))


def shared_items(view: ClusterView) -> dict[str, Item]:
    """What is the same for every node that is told of it: endpoints, services and published ports."""
    items: dict[str, Item] = {}
    for endpoint in _endpoints(view):
        items[f"endpoint/{endpoint.network_id}/{endpoint.endpoint.address}"] = endpoint
    for service in network_services(view):
        items[f"service/{service.network_id}/{service.service_id}"] = service
    for port in _ports(view):
        items[f"port/{port.protocol}/{port.published_port}"] = port
    items.update(_encryption(view))
    return items


def _encryption(view: ClusterView) -> Iterable[tuple[str, Item]]:
    """Of the cluster's tunnel keys, the present generation, and who has which."""
    for cluster in view.list(Cluster):
        if cluster.encryption.generation:
            yield "encryption", cluster.encryption
    for node in view.list(Node):
        if node.description.tunnel_keys:
            peer = TunnelPeer(host=node.description.data_path_address, keys=node.description.tunnel_keys)
            yield f"peer/{node.id}", peer


def node_items(view: ClusterView, node_id: NodeID, shared: Items) -> dict[str, Item]:
    """Everything that one node must know; what a task uses comes before it."""
    tasks = [task for task in view.tasks_on_node(node_id) if _is_assigned(task)]
    items: dict[str, Item] = {f"payload/{p.id}": p for task in tasks for p in _payloads(view, task)}
    items |= {f"task/{task.id}": task for task in tasks}
    node = view.get(Node, node_id)
    if node is None:
        return items
    networks = _networks(view, node, tasks)
    items.update((f"network/{network.id}", network) for network in networks)
    near = {network.id for network in networks}
    items.update((key, item) for key, item in shared.items() if _concerns(item, node, near))
    return items


def _concerns(item: Item, node: Node, networks: Set[str]) -> bool:
    if isinstance(item, NetworkEndpoint | NetworkService):
        return item.network_id in networks
    if isinstance(item, Encryption | TunnelPeer):
        return True  # keys are made before the first task comes
    return bool(node.attachments)  # a published port


def _is_assigned(task: Task) -> bool:
    return task.status.state >= TaskState.ASSIGNED


def _payloads(view: ClusterView, task: Task) -> Iterable[Payload]:
    """What a task needs until it has ended, each under the version that its reference names."""
    if task.status.state > TaskState.RUNNING:
        return
    for reference in references(task.spec.container_spec):
        item = _referenced(view, reference)
        version = reference.version or (item.current if item is not None else 0)
        found = view.get(Payload, payload_id(item.id, version)) if item is not None else None
        if item is not None and found is not None:
            is_template = item.spec.templating is not None
            id_there = payload_id(item.id, reference.version)
            driver = item.spec.driver if isinstance(item, Secret) else None
            labels = item.spec.labels if driver is not None else {}
            yield Payload(id=id_there, data=found.data, is_template=is_template, driver=driver, labels=labels)


def _referenced(view: ClusterView, reference: SecretReference | ConfigReference) -> Secret | Config | None:
    if isinstance(reference, SecretReference):
        return view.get(Secret, reference.secret_id)
    return view.get(Config, reference.config_id)


def _changed(told: Item | None, item: Item) -> bool:
    if isinstance(told, Task) and isinstance(item, Task):
        return told.desired_state != item.desired_state
    return told != item


def _networks(view: ClusterView, node: Node, tasks: Iterable[Task]) -> list[OverlayNetwork]:
    clusters = view.list(Cluster)
    port = clusters[0].data_path_port if clusters else OverlayNetwork().data_path_port
    own = {a.network_id: bare_address(a.addresses[0]) for a in node.attachments if a.addresses}
    living = (task for task in tasks if task.status.state <= TaskState.RUNNING)
    near = own.keys() | {a.network_id for task in living for a in task.attachments}
    return [
        OverlayNetwork(
            id=n.id,
            name=n.spec.name,
            vni=n.vni,
            subnets=n.subnets,
            ipv6_subnet=n.ipv6_subnet,
            data_path_port=port,
            host_address=own.get(n.id, ""),
            internal=n.spec.internal,
            mtu=mtu_of(n.spec),
            encrypted=is_encrypted(n.spec),
        )
        for n in view.list(Network)
        if n.subnets and n.id in near
    ]


def _endpoints(view: ClusterView) -> Iterable[NetworkEndpoint]:
    for node in view.list(Node):
        host = node.description.data_path_address
        if not host:
            continue
        holders = [node.attachments]
        holders += [t.attachments for t in view.tasks_on_node(node.id) if t.status.state <= TaskState.RUNNING]
        for attachment in (a for attachments in holders for a in attachments):
            for address in attachment.addresses[:1]:  # that of IPv6 follows from it
                endpoint = OverlayEndpoint(address=bare_address(address), host=host)
                yield NetworkEndpoint(network_id=attachment.network_id, endpoint=endpoint)


def _ports(view: ClusterView) -> Iterable[PublishedPort]:
    ingress = {n.id for n in view.list(Network) if n.spec.ingress}
    for service in _published(view):
        backends = _backends(view, service.tasks, ingress)
        for port in service.ports:
            yield replace(port, backends=backends)


@dataclass(frozen=True, slots=True)
class _Published:
    tasks: tuple[Task, ...]
    ports: tuple[PublishedPort, ...]


def _published(view: ClusterView) -> Iterable[_Published]:
    for service in view.list(Service):
        options = service_options(service.spec.labels).ports
        ports = tuple(
            _published_port(service.id, p, options.get(PortName(p.protocol, p.published_port), PortOptions()))
            for p in service.endpoint.ports
            if p.publish_mode is PublishMode.INGRESS
        )
        if ports:
            yield _Published(view.tasks_of_service(service.id), ports)


def _published_port(service_id: str, port: PortConfig, options: PortOptions) -> PublishedPort:
    return PublishedPort(
        service_id=service_id,
        protocol=port.protocol,
        published_port=port.published_port,
        target_port=port.target_port,
        preserves_source=options.preserves_source,
        proxy_protocol=options.proxy_protocol,
    )


def _backends(view: ClusterView, tasks: Iterable[Task], ingress: Set[str]) -> tuple[Backend, ...]:
    """Tasks that may get new connections, in address order."""
    found = [
        Backend(address=bare_address(address), suspect=is_suspect(node))
        for task, node in serving_tasks(view, tasks)
        for attachment in task.attachments
        if attachment.network_id in ingress
        for address in attachment.addresses
    ]
    return tuple(sorted(found, key=lambda b: b.address))
