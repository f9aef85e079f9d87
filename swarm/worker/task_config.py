"""A task as a container: its spec, its image's defaults and this node in, `ContainerConfig` out. Pure.

Invariant: what the spec leaves open the image decides, then the defaults; templates are expanded here and
nowhere before, for this task on this node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from swarm.base.errors import InvalidArgument
from swarm.model.container import DNSConfig, Privileges, SeccompOpts
from swarm.model.container_rules import read_device, read_host, read_security_options
from swarm.model.defaults import PIDS_LIMIT
from swarm.model.log_driver import log_policy
from swarm.model.objects import Task
from swarm.model.options import ContainerOptions, container_options
from swarm.model.specs import ContainerSpec
from swarm.model.task_template import TemplateContext, expand_templates
from swarm.model.types import GenericResource, ResourceRequirements
from swarm.worker.images.image import ImageConfig
from swarm.worker.runtime.config import SHM_BYTES, ContainerConfig, process_args, process_env

SWAPPINESS_UNSET = -1
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a container gets from its node."""

    hostname: str
    architecture: str
    nameservers: tuple[str, ...]
    """Those that a container can reach itself."""
    resolvers: tuple[str, ...] = ()
    """All of the host's, also on its loopback: its name server asks them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a container is built on."""

    image: ImageConfig
    lower_dirs: tuple[Path, ...]
    netns: Path | None
    is_host_network: bool = False
    resolver: str = ""
    """Who answers for the names on its networks, and asks the nameservers for others."""


def container_config(task: Task, base: Base, node: NodeFacts) -> ContainerConfig:
    """Raises: InvalidArgument, Fatal."""
    spec = expanded_spec(task, node)
    image, options = base.image, container_options(spec.labels)
    hostname = spec.hostname or (node.hostname if base.is_host_network else task.id[:12])
    dns = spec.dns_config or DNSConfig()
    config = ContainerConfig(
        id=task.id,
        name=task.name,
        lower_dirs=base.lower_dirs,
        args=process_args(command=spec.command, args=spec.args, entrypoint=image.entrypoint, cmd=image.cmd),
        env=process_env(
            image=image.env,
            user=(*resource_env(task.assigned_generic_resources), *spec.env),
            hostname=hostname,
        ),
        cwd=spec.dir or image.working_dir or "/",
        user=spec.user or image.user,
        groups=spec.groups,
        hostname=hostname,
        hosts=_hosts(task, spec, hostname),
        nameservers=(base.resolver,) if base.resolver else dns.nameservers or node.nameservers,
        dns_search=dns.search,
        mounts=spec.mounts,
        image_volumes=image.volumes,
        netns=base.netns,
        is_host_network=base.is_host_network,
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        read_only=spec.read_only,
        init=bool(spec.init),
        oom_score_adj=spec.oom_score_adj,
        sysctls=spec.sysctls,
        ulimits=spec.ulimits,
        log=log_policy(task.spec.log_driver),
    )
    if dns.options:
        config = replace(config, dns_options=dns.options)
    return _limited(_with_rights(config, spec, options), task.spec.resources or ResourceRequirements())


def resolvers(task: Task, node: NodeFacts) -> tuple[str, ...]:
    """Who knows the names of the world: those that the spec names, else the node's own."""
    dns = task.spec.container_spec.dns_config
    return (dns.nameservers if dns else ()) or node.resolvers


def expanded_spec(task: Task, node: NodeFacts) -> ContainerSpec:
    """The task's container spec without templates. Raises: InvalidArgument."""
    return expand_templates(task.spec.container_spec, template_context(task, node))


def template_context(task: Task, node: NodeFacts) -> TemplateContext:
    """What templates of the task may name."""
    return TemplateContext(
        service_id=task.service_id,
        service_name=task.service_name,
        service_labels=task.service_labels,
        node_id=task.node_id,
        node_hostname=node.hostname,
        node_architecture=node.architecture,
        task_id=task.id,
        task_name=task.name,
        task_slot=str(task.slot or task.node_id),
    )


def resource_env(resources: Iterable[GenericResource]) -> tuple[str, ...]:
    """`DOCKER_RESOURCE_GPU=a,b` for named ones, `DOCKER_RESOURCE_SSD=2` for counted ones."""
    values: dict[str, list[str]] = {}
    for resource in resources:
        if (named := resource.named_resource_spec) is not None:
            values.setdefault(named.kind, []).append(named.value)
        elif (counted := resource.discrete_resource_spec) is not None:
            values.setdefault(counted.kind, []).append(str(counted.value))
    return tuple(f"DOCKER_RESOURCE_{kind.upper()}={','.join(found)}" for kind, found in values.items())


def _hosts(task: Task, spec: ContainerSpec, hostname: str) -> tuple[tuple[str, str], ...]:
    addresses = [a.partition("/")[0] for at in task.attachments for a in at.addresses]
    own = ((address, hostname) for address in addresses or (LOOPBACK,))
    return (*own, *(pair for line in spec.hosts for pair in read_host(line)))


def _with_rights(config: ContainerConfig, spec: ContainerSpec, options: ContainerOptions) -> ContainerConfig:
    privileges = spec.privileges or Privileges()
    security = read_security_options(options.security_opts)
    seccomp = privileges.seccomp or SeccompOpts()
    if security.is_seccomp_unconfined:
        seccomp = SeccompOpts(mode="unconfined")
    return replace(
        config,
        capability_add=spec.capability_add,
        capability_drop=spec.capability_drop,
        no_new_privileges=privileges.no_new_privileges or security.no_new_privileges,
        seccomp=seccomp,
        privileged=options.privileged,
        devices=tuple(read_device(text) for text in options.devices),
        shm_bytes=options.shm_size_bytes or SHM_BYTES,
        pid_host=options.pid_host,
        ipc_host=options.ipc_host,
        are_system_paths_open=security.are_system_paths_open,
    )


def _limited(config: ContainerConfig, resources: ResourceRequirements) -> ContainerConfig:
    limits, swap, swappiness = resources.limits, resources.swap_bytes, resources.memory_swappiness
    if swap is not None and swap > 0 and not limits.memory_bytes:
        raise InvalidArgument("a swap limit needs a memory limit: set --limit-memory too")
    return replace(
        config,
        limits=replace(limits, pids=limits.pids or PIDS_LIMIT),
        swap_bytes=swap,
        swappiness=None if swappiness == SWAPPINESS_UNSET else swappiness,
    )
