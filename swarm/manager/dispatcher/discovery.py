"""Who answers for a service on each of its networks: what hosts need for names and virtual addresses. Pure.

In: the view. Out: a `NetworkService` for each service and network. Invariant: only tasks that run well, are
meant to run, and whose node is not down, are named or balanced to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from swarm.base.errors import InvalidArgument
from swarm.model.dataplane import NetworkService, ServiceBackend
from swarm.model.objects import Network, Node, Service, Task
from swarm.model.specs import ContainerSpec
from swarm.model.task_state import TaskState
from swarm.model.task_template import TemplateContext, expand_templates
from swarm.model.types import NodeState
from swarm.model.view import ClusterView

SHORT_ID = 12


def serving_tasks(view: ClusterView, tasks: Iterable[Task]) -> Iterator[tuple[Task, Node]]:
    """Those that may get new connections, each with its node."""
    for task in tasks:
        runs = task.status.state is TaskState.RUNNING and not task.status.is_unhealthy
        if not runs or task.desired_state is not TaskState.RUNNING:
            continue
        node = view.get(Node, task.node_id)
        if node is not None and node.status.state is not NodeState.DOWN:
            yield task, node


def is_suspect(node: Node) -> bool:
    """Its session is broken, or a heartbeat overdue: others are better while there are any."""
    return node.status.state is not NodeState.READY


def network_services(view: ClusterView) -> Iterator[NetworkService]:
    """Every service on every network that it has tasks or a virtual address on, but for the ingress."""
    networks = {n.id for n in view.list(Network) if not n.spec.ingress}
    if not networks:
        return
    for service in view.list(Service):
        aliases = _aliases(service)
        virtual = {v.network_id: bare_address(v.addr) for v in service.endpoint.virtual_ips if not v.is_ipv6}
        backends = _backends(view, service)
        for network_id in sorted(networks & (virtual.keys() | backends.keys() | aliases.keys())):
            yield NetworkService(
                network_id=network_id,
                service_id=service.id,
                name=service.spec.name,
                virtual_ip=virtual.get(network_id, ""),
                aliases=aliases.get(network_id, ()),
                backends=tuple(sorted(backends.get(network_id, ()), key=lambda b: b.address)),
            )


def bare_address(address: str) -> str:
    return address.partition("/")[0]


def _aliases(service: Service) -> Mapping[str, tuple[str, ...]]:
    """By network, for every network that the service is on."""
    return {a.target: a.aliases for a in service.spec.task_template.networks}


def _backends(view: ClusterView, service: Service) -> Mapping[str, list[ServiceBackend]]:
    found: dict[str, list[ServiceBackend]] = defaultdict(list)
    for task, node in serving_tasks(view, view.tasks_of_service(service.id)):
        if not task.attachments:
            continue
        names = _own_names(task, node)
        for attachment in task.attachments:
            for address in attachment.addresses[:1]:
                found[attachment.network_id].append(
                    ServiceBackend(address=bare_address(address), suspect=is_suspect(node), names=names)
                )
    return found


def _own_names(task: Task, node: Node) -> tuple[str, ...]:
    short = task.id[:SHORT_ID]
    hostname = _hostname(task, node)
    return (task.name, short, *([hostname] if hostname not in ("", short) else ()))


def _hostname(task: Task, node: Node) -> str:
    given = task.spec.container_spec.hostname
    if "{{" not in given:
        return given
    context = TemplateContext(
        service_id=task.service_id,
        service_name=task.service_name,
        service_labels=task.service_labels,
        node_id=node.id,
        node_hostname=node.description.hostname,
        node_architecture=node.description.platform.architecture,
        task_id=task.id,
        task_name=task.name,
        task_slot=str(task.slot or task.node_id),
    )
    try:
        return expand_templates(ContainerSpec(hostname=given), context).hostname
    except InvalidArgument:  # then the task cannot run either
        return ""
