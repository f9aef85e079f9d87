"""Networks as Docker's clients read and write them. Pure.

In: what a client posted, or stored networks and the view. Out: a `NetworkSpec`, or JSON with Docker's keys
and, under `Usage`, what Docker does not tell: how many addresses are used, and how many tasks there are.
Source: Docker Engine API 1.50.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from swarm.base.errors import InvalidArgument, Unsupported
from swarm.manager.allocator.addresses import AddressUse, address_use
from swarm.model.docker_json import Json, decode, encode, timestamp
from swarm.model.networks import CONFIG_DRIVER, OVERLAY, VNI_OPTION, scope_of
from swarm.model.objects import Network, Node, Service, Task
from swarm.model.specs import NetworkSpec
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import IPAMConfig, VirtualIP
from swarm.model.view import ClusterView
from swarm.overlay.plan import mac_of

DEFAULT_IPAM = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ipam:
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    config: tuple[IPAMConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _ConfigFrom:
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Create:
    name: str = ""
    check_duplicate: bool = True
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam: _Ipam = field(default_factory=_Ipam)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: _ConfigFrom = field(default_factory=_ConfigFrom)
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def read_network(value: object) -> NetworkSpec:
    """What `POST /networks/create` brings. Raises: InvalidArgument, Unsupported."""
    posted = decode(_Create, value)
    driver = CONFIG_DRIVER if posted.config_only else posted.driver or OVERLAY
    if driver == "bridge":
        raise Unsupported(
            "networks of one host are not supported by this version: "
            f"create {posted.name} with --driver overlay"
        )
    if posted.scope not in ("", "local" if posted.config_only else "swarm"):
        raise InvalidArgument(f"invalid scope {posted.scope}: only config-only networks are one node's")
    if not posted.enable_ipv4:
        raise InvalidArgument("a network needs IPv4: leave out --ipv4=false")
    if posted.ipam.driver not in ("", DEFAULT_IPAM):
        raise Unsupported(f"IPAM driver {posted.ipam.driver} is not supported by this version")
    if posted.ipam.options:
        raise Unsupported("IPAM options are not supported by this version")
    return NetworkSpec(
        name=posted.name,
        labels=posted.labels,
        driver=driver,
        options=posted.options,
        ipam=posted.ipam.config,
        internal=posted.internal,
        attachable=posted.attachable,
        ingress=posted.ingress,
        config_only=posted.config_only,
        config_from=posted.config_from.network,
        enable_ipv6=posted.enable_ipv6,
    )


def network_json(network: Network, scope: str = "") -> Json:
    spec = network.spec
    found = {
        "Name": spec.name,
        "Id": network.id,
        "Created": timestamp(network.meta.created_at),
        "Scope": scope or scope_of(network),
        "Driver": spec.driver,
        "EnableIPv4": True,
        "EnableIPv6": spec.enable_ipv6,
        "IPAM": {"Driver": DEFAULT_IPAM, "Options": None, "Config": ipam_configs(network)},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": spec.config_from},
        "ConfigOnly": spec.config_only,
        "Containers": None,
        "Options": driver_options(network),
        "Labels": dict(spec.labels),
    }
    return found | ({"Error": network.err} if network.err else {})


def driver_options(network: Network) -> Json:
    """Those asked for, and what the network was given."""
    return dict(network.spec.options) | ({VNI_OPTION: str(network.vni)} if network.vni else {})


def ipam_configs(network: Network) -> list[Json]:
    """As allocated; before that, as asked for."""
    return [encode(config) for config in network.ipam or network.spec.ipam]


def with_usage(view: ClusterView, networks: Iterable[Network]) -> list[Json]:
    """Networks as a list shows them, each with its `Usage`."""
    use, tasks = address_use(view), _tasks_by_network(view)
    return [network_json(n) | {"Usage": _usage(use.get(n.id), tasks.get(n.id, ()))} for n in networks]


def _usage(use: AddressUse | None, tasks: Iterable[Task]) -> Json:
    found = {"Tasks": len(tuple(tasks))}
    return found | ({"Addresses": use.used, "Size": use.size} if use is not None else {})


def _tasks_by_network(view: ClusterView) -> dict[str, list[Task]]:
    """The tasks that are, or will be, on each network."""
    found: dict[str, list[Task]] = {}
    for task in view.list(Task):
        if not is_dead(task.status.state):
            for attachment in task.attachments:
                found.setdefault(attachment.network_id, []).append(task)
    return found


def detailed_network(view: ClusterView, network: Network, node_id: str, *, verbose: bool) -> Json:
    """As `inspect` shows it; `Containers` are those of the node that answers."""
    tasks = _tasks_by_network(view).get(network.id, [])
    found = network_json(network) | {
        "Usage": _usage(address_use(view).get(network.id), tasks),
        "Containers": {t.id: _container(t, network.id) for t in tasks if t.node_id == node_id},
        "Peers": _peers(view, tasks),
    }
    return found | ({"Services": dict(_services(view, network, tasks))} if verbose else {})


def _addresses(task: Task, network_id: str) -> tuple[str, ...]:
    return tuple(a for found in task.attachments if found.network_id == network_id for a in found.addresses)


def _container(task: Task, network_id: str) -> Json:
    address, ipv6_address, *_ = (*_addresses(task, network_id), "", "")
    return {
        "Name": task.name,
        "EndpointID": "",
        "MacAddress": mac_of(address.partition("/")[0]) if address else "",
        "IPv4Address": address,
        "IPv6Address": ipv6_address,
    }


def _peers(view: ClusterView, tasks: Iterable[Task]) -> list[Json]:
    """The nodes that have tasks on the network."""
    nodes = {task.node_id: view.get(Node, task.node_id) for task in tasks if task.node_id}
    named = [node for node in nodes.values() if node is not None]
    return [
        {"Name": node.description.hostname, "IP": node.description.data_path_address or node.status.addr}
        for node in sorted(named, key=lambda node: node.description.hostname)
    ]


def _services(view: ClusterView, network: Network, tasks: Iterable[Task]) -> Iterator[tuple[str, Json]]:
    by_service: dict[str, list[Task]] = {}
    for task in tasks:
        by_service.setdefault(task.service_id, []).append(task)
    for service in view.list(Service):
        virtual = [v for v in service.endpoint.virtual_ips if v.network_id == network.id]
        if service.id in by_service or virtual:
            yield service.spec.name, _service(view, network, virtual, by_service.get(service.id, []))


def _service(
    view: ClusterView, network: Network, virtual: Iterable[VirtualIP], tasks: Iterable[Task]
) -> Json:
    running = [task for task in tasks if task.status.state is TaskState.RUNNING]
    return {
        "VIP": next((v.addr.partition("/")[0] for v in virtual), ""),
        "Ports": [],
        "LocalLBIndex": 0,
        "Tasks": [
            {
                "Name": task.name,
                "EndpointID": "",
                "EndpointIP": next(iter(_addresses(task, network.id)), "").partition("/")[0],
                "Info": {"Host IP": _host_ip(view, task)},
            }
            for task in running
        ],
    }


def _host_ip(view: ClusterView, task: Task) -> str:
    node = view.get(Node, task.node_id)
    return (node.description.data_path_address or node.status.addr) if node else ""
