"""What a user's specs must fulfil before they are stored.

In: a decoded spec. Out: nothing, or `InvalidArgument` with the sentence that Docker prints where it has one.
Rules that need other objects (a name or a port that is taken) belong to `swarm.manager.control`.

Invariant: a text that is later written into a file line, an environment or a rule set holds no NUL, and no
newline where a line would end. Source: SwarmKit controlapi/service.go and common.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

from swarm.base.errors import InvalidArgument
from swarm.model.constraint import check_placement
from swarm.model.container import DNSConfig
from swarm.model.container_rules import (
    check_capabilities,
    check_container_options,
    check_health,
    check_hosts,
    check_privileges,
    check_sysctls,
    check_ulimits,
)
from swarm.model.defaults import CLUSTER_PORTS
from swarm.model.image_reference import parse_reference
from swarm.model.log_driver import log_policy
from swarm.model.mount_rules import validate_mounts
from swarm.model.option_rules import check_service_options
from swarm.model.options import container_options
from swarm.model.payload_rules import check_references
from swarm.model.signals import parse_signal
from swarm.model.specs import ContainerSpec, NodeSpec, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.task_template import check_templates
from swarm.model.types import (
    EndpointSpec,
    FailureAction,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    UpdateConfig,
)

_DNS_LABEL = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*")
_HOSTNAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

NAME_LIMIT = 63
MIN_NANO_CPUS = 1_000_000
MIN_MEMORY_BYTES = 4 * 1024 * 1024
MAX_REPLICAS = 100_000
MAX_PORT = 65535
MAX_PORTS = 60
"""Of one service: each is a key of its own in the store, and a change of all of them is one transaction."""
LABELS_LIMIT_BYTES = 128 * 1024


def validate_service_spec(spec: ServiceSpec) -> None:
    """Raises InvalidArgument for the first rule that is broken."""
    validate_service_name(spec.name)
    validate_labels(spec.labels)
    validate_mode(spec.mode)
    container = check_templates(spec.task_template.container_spec, spec.labels)
    validate_task_spec(replace(spec.task_template, container_spec=container))
    validate_endpoint_spec(spec.endpoint_spec)
    _validate_policies(spec)
    is_per_node = spec.mode.global_ is not None or spec.mode.global_job is not None
    if is_per_node and spec.task_template.placement and spec.task_template.placement.max_replicas:
        raise InvalidArgument("replicas-max-per-node can only be used with replicated or replicated-job mode")
    check_service_options(spec)


def _validate_policies(spec: ServiceSpec) -> None:
    if spec.mode.is_job and (spec.update_config is not None or spec.rollback_config is not None):
        raise InvalidArgument("Jobs may not have an update config")
    validate_update_config("update", spec.update_config)
    validate_update_config("rollback", spec.rollback_config)
    if spec.rollback_config is not None and spec.rollback_config.failure_action is FailureAction.ROLLBACK:
        raise InvalidArgument("invalid rollback failure action: a rollback that fails can pause or continue")


def validate_update_config(name: str, config: UpdateConfig | None) -> None:
    """`name` is update or rollback."""
    if config is None:
        return
    if config.parallelism < 0:
        raise InvalidArgument(f"TaskSpec: {name}-parallelism cannot be negative")
    if config.delay < timedelta(0):
        raise InvalidArgument(f"TaskSpec: {name}-delay cannot be negative")
    if config.monitor < timedelta(0):
        raise InvalidArgument(f"TaskSpec: {name}-monitor cannot be negative")
    if not 0 <= config.max_failure_ratio <= 1:
        raise InvalidArgument(f"TaskSpec: {name}-maxfailureratio cannot be less than 0 or bigger than 1")


def validate_service_name(name: str) -> None:
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if len(name) > NAME_LIMIT:
        raise InvalidArgument(f"name must be {NAME_LIMIT} characters or fewer")
    if not _DNS_LABEL.fullmatch(name):
        raise InvalidArgument("name must be valid as a DNS name component")


def validate_labels(labels: Mapping[str, str]) -> None:
    if any(not key for key in labels):
        raise InvalidArgument("invalid label: the key must not be empty")
    for key, value in labels.items():
        if _CONTROL.search(key):
            raise InvalidArgument(f"invalid label {key!r}: the key must not contain control characters")
        _refuse_nul("label", key, value)
    if sum(len(key) + len(value) for key, value in labels.items()) > LABELS_LIMIT_BYTES:
        raise InvalidArgument(f"labels are too large: at most {LABELS_LIMIT_BYTES} characters in all")


def validate_mode(mode: ServiceMode) -> None:
    if mode.replicated is not None and not 0 <= mode.replicated.replicas <= MAX_REPLICAS:
        raise InvalidArgument(
            f"invalid number of replicas {mode.replicated.replicas}: must be between 0 and {MAX_REPLICAS}"
        )
    job = mode.replicated_job
    if job is None:
        return
    if (job.max_concurrent or 0) < 0:
        raise InvalidArgument("Maximum concurrent jobs must not be negative")
    if (job.total_completions or 0) < 0:
        raise InvalidArgument("Total completed jobs must not be negative")
    if max(job.max_concurrent or 0, job.total_completions or 0) > MAX_REPLICAS:
        raise InvalidArgument(f"invalid number of completions: must be between 0 and {MAX_REPLICAS}")


def validate_task_spec(task: TaskSpec) -> None:
    validate_container_spec(task.container_spec)
    if task.resources is not None:
        validate_resources(task.resources)
    if task.restart_policy is not None:
        validate_restart_policy(task.restart_policy)
    if task.placement is not None:
        check_placement(task.placement)
    if task.force_update < 0:
        raise InvalidArgument("invalid ForceUpdate: must not be negative")
    log_policy(task.log_driver)


def validate_container_spec(container: ContainerSpec) -> None:
    validate_image(container.image)
    validate_labels(container.labels)
    _validate_process(container)
    if container.hostname and (
        len(container.hostname) > NAME_LIMIT or not _HOSTNAME.fullmatch(container.hostname)
    ):
        raise InvalidArgument(
            f"invalid hostname {container.hostname!r}: letters, digits, '-' and '.', at most 63"
        )
    if container.stop_signal:
        parse_signal(container.stop_signal)
    if container.stop_grace_period is not None and container.stop_grace_period < timedelta(0):
        raise InvalidArgument("invalid stop grace period: must not be negative")
    validate_mounts(container.mounts)
    check_references(container)
    _validate_rights(container)
    _validate_surroundings(container)


def _validate_rights(container: ContainerSpec) -> None:
    options = container_options(container.labels)
    check_container_options(options)
    check_privileges(container.privileges)
    check_capabilities((*container.capability_add, *container.capability_drop))
    check_ulimits(container.ulimits)
    check_sysctls(container.sysctls, is_ipc_host=options.ipc_host)
    if not -1000 <= container.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"invalid OomScoreAdj value {container.oom_score_adj}: must be between -1000 and 1000"
        )
    for group in container.groups:
        if not group or _CONTROL.search(group) or ":" in group:
            raise InvalidArgument(f"invalid group {group!r}: expected a name or a number")


def _validate_surroundings(container: ContainerSpec) -> None:
    check_health(container.healthcheck)
    check_hosts(container.hosts)
    if container.dns_config is not None:
        validate_dns_config(container.dns_config)


def validate_dns_config(dns: DNSConfig) -> None:
    for server in dns.nameservers:
        try:
            ip_address(server)
        except ValueError:
            raise InvalidArgument(f"invalid nameserver {server!r}: expected an IP address") from None
    for word in (*dns.search, *dns.options):
        if not word or not word.isprintable() or " " in word:
            raise InvalidArgument(f"invalid DNS search domain or option {word!r}")


def _validate_process(container: ContainerSpec) -> None:
    for text in container.env:
        name = text.partition("=")[0]
        if not name:
            raise InvalidArgument(f"invalid environment variable: {text}")
        if _CONTROL.search(name):
            raise InvalidArgument(f"invalid environment variable {name!r}: control characters in its name")
    for text in (*container.env, *container.command, *container.args):
        _refuse_nul("argument or environment variable", "", text)
    if _CONTROL.search(container.user) or container.user.count(":") > 1:
        raise InvalidArgument(f"invalid user {container.user!r}: expected name|uid[:group|gid]")
    if container.dir and (not container.dir.startswith("/") or _CONTROL.search(container.dir)):
        raise InvalidArgument(
            f"the working directory '{container.dir}' is invalid, it needs to be an absolute path"
        )


def validate_image(image: str) -> None:
    if not image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    try:
        parse_reference(image)
    except InvalidArgument as error:
        raise InvalidArgument(f'ContainerSpec: "{image}" is not a valid repository/tag') from error


def validate_resources(resources: ResourceRequirements) -> None:
    for wanted in (resources.limits, resources.reservations):
        _validate_amounts(wanted)
    if resources.reservations.pids:
        raise InvalidArgument("invalid reservation: pids can only be limited")
    limits, reserved = resources.limits, resources.reservations
    if limits.nano_cpus and reserved.nano_cpus > limits.nano_cpus:
        raise InvalidArgument("invalid cpu reservation: it must not exceed the limit")
    if limits.memory_bytes and reserved.memory_bytes > limits.memory_bytes:
        raise InvalidArgument("invalid memory reservation: it must not exceed the limit")
    _validate_swap(resources)
    _validate_generic_resources(resources)


def _validate_swap(resources: ResourceRequirements) -> None:
    swap, swappiness = resources.swap_bytes, resources.memory_swappiness
    if swap is not None and swap < -1:
        raise InvalidArgument(f"invalid memory-swap {swap}: must be -1 (no limit) or more")
    if swap and not resources.limits.memory_bytes:
        raise InvalidArgument("invalid memory-swap: it needs a memory limit")
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"invalid memory-swappiness {swappiness}: valid range is 0-100")


def _validate_generic_resources(resources: ResourceRequirements) -> None:
    if resources.limits.generic_resources:
        raise InvalidArgument("invalid limit: generic resources can only be reserved")
    for wanted in resources.reservations.generic_resources:
        if wanted.named_resource_spec is not None:
            raise InvalidArgument(
                f"invalid generic resource {wanted.named_resource_spec.kind}: a service asks for a number of "
                "them, not for one by its name"
            )
        number = wanted.discrete_resource_spec
        if number is None or not number.kind or _CONTROL.search(number.kind) or number.value < 0:
            raise InvalidArgument("invalid generic resource: expected a kind and a number, such as gpu=2")


def _validate_amounts(wanted: Resources) -> None:
    if wanted.nano_cpus and wanted.nano_cpus < MIN_NANO_CPUS:
        cpus = f"{wanted.nano_cpus / 1e9:g}"
        raise InvalidArgument(f"invalid cpu value {cpus}: Must be at least {MIN_NANO_CPUS / 1e9:g}")
    if wanted.memory_bytes and wanted.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument(f"invalid memory value {wanted.memory_bytes}: Must be at least 4MiB")
    if wanted.pids < 0:
        raise InvalidArgument(f"invalid pids limit {wanted.pids}: must not be negative")


def validate_restart_policy(policy: RestartPolicy) -> None:
    if policy.delay < timedelta(0):
        raise InvalidArgument("TaskSpec: restart-delay cannot be negative")
    if policy.window < timedelta(0):
        raise InvalidArgument("TaskSpec: restart-window cannot be negative")
    if policy.max_attempts < 0:
        raise InvalidArgument("TaskSpec: restart-max-attempts cannot be negative")


def validate_endpoint_spec(endpoint: EndpointSpec | None) -> None:
    if endpoint is None:
        return
    if endpoint.mode not in ("", "vip", "dnsrr"):
        raise InvalidArgument(f'invalid endpoint mode "{endpoint.mode}": must be vip or dnsrr')
    if len(endpoint.ports) > MAX_PORTS:
        raise InvalidArgument(f"too many ports: a service can publish at most {MAX_PORTS}")
    published: set[tuple[int, str, str]] = set()
    for port in endpoint.ports:
        if not 1 <= port.target_port <= MAX_PORT:
            raise InvalidArgument(f"invalid target port {port.target_port}: must be between 1 and {MAX_PORT}")
        if not 0 <= port.published_port <= MAX_PORT:
            raise InvalidArgument(
                f"invalid published port {port.published_port}: must be between 0 and {MAX_PORT}"
            )
        if port.published_port in CLUSTER_PORTS.get(port.protocol, frozenset()):
            raise InvalidArgument(
                f"port {port.published_port}/{port.protocol} is the swarm's own: publish another one"
            )
        if endpoint.mode == "dnsrr" and port.publish_mode is PublishMode.INGRESS:
            raise InvalidArgument(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
            )
        key = (port.published_port, port.protocol, port.publish_mode)
        if port.published_port and key in published:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        published.add(key)


def validate_node_spec(spec: NodeSpec) -> None:
    validate_labels(spec.labels)
    if _CONTROL.search(spec.name):
        raise InvalidArgument(f"invalid node name {spec.name!r}: control characters are not allowed")


def _refuse_nul(what: str, name: str, text: str) -> None:
    if "\0" in text:
        raise InvalidArgument(f"invalid {what} {name}: must not contain NUL".replace("  ", " "))
