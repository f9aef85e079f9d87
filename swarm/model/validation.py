"""What a user's specs must fulfil before they are stored.

In: a decoded spec. Out: nothing, or `InvalidArgument` with the sentence that Docker prints where it has one.
Rules that need other objects (a name or a port that is taken) belong to `swarm.manager.control`.

Invariant: a text that is later written into a file line, an environment or a rule set holds no NUL, and no
newline where a line would end. Source: SwarmKit controlapi/service.go and common.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta

from swarm.base.errors import InvalidArgument
from swarm.model.defaults import CLUSTER_PORTS
from swarm.model.image_reference import parse_reference
from swarm.model.signals import parse_signal
from swarm.model.specs import ContainerSpec, NodeSpec, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.types import (
    EndpointSpec,
    Mount,
    MountType,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
)

_DNS_LABEL = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*")
_HOSTNAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

NAME_LIMIT = 63
MIN_NANO_CPUS = 1_000_000
MIN_MEMORY_BYTES = 4 * 1024 * 1024
MAX_REPLICAS = 100_000
MAX_PORT = 65535
MAX_PORTS = 60
"""Of one service: each is a key of its own in the store, and a change of all of them is one transaction."""
LABELS_LIMIT_BYTES = 128 * 1024
_PROPAGATIONS = frozenset({"", "private", "rprivate", "shared", "rshared", "slave", "rslave"})


def validate_service_spec(spec: ServiceSpec) -> None:
    """Raises InvalidArgument for the first rule that is broken."""
    validate_service_name(spec.name)
    validate_labels(spec.labels)
    validate_mode(spec.mode)
    validate_task_spec(spec.task_template)
    validate_endpoint_spec(spec.endpoint_spec)
    if spec.mode.global_ and spec.task_template.placement and spec.task_template.placement.max_replicas:
        raise InvalidArgument("replicas-max-per-node can only be used with replicated or replicated-job mode")


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


def validate_task_spec(task: TaskSpec) -> None:
    validate_container_spec(task.container_spec)
    if task.resources is not None:
        validate_resources(task.resources)
    if task.restart_policy is not None:
        validate_restart_policy(task.restart_policy)
    if task.placement is not None and task.placement.max_replicas < 0:
        raise InvalidArgument("invalid max replicas per node: must not be negative")
    if task.force_update < 0:
        raise InvalidArgument("invalid ForceUpdate: must not be negative")


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


def validate_mounts(mounts: Iterable[Mount]) -> None:
    seen: set[str] = set()
    for mount in mounts:
        validate_mount(mount)
        target = _normal_path(mount.target)
        if target in seen:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        seen.add(target)


def validate_mount(mount: Mount) -> None:
    if not mount.target:
        raise InvalidArgument(f'invalid mount config for type "{mount.type}": field Target must not be empty')
    _check_path(mount, "target", mount.target)
    if _normal_path(mount.target) == "/":
        raise InvalidArgument(f"invalid mount target {mount.target}: destination can't be '/'")
    _refuse_foreign_options(mount)
    match mount.type:
        case MountType.BIND:
            if not mount.source:
                raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
            _check_path(mount, "source", mount.source)
            if mount.bind_options and mount.bind_options.propagation not in _PROPAGATIONS:
                raise InvalidArgument(f"invalid propagation mode: {mount.bind_options.propagation}")
        case MountType.VOLUME:
            if len(mount.source) == 1:
                raise InvalidArgument(
                    f'volume name "{mount.source}" is too short, '
                    "names should be at least two alphanumeric characters"
                )
            if mount.source and not _VOLUME_NAME.fullmatch(mount.source):
                raise InvalidArgument(
                    f'"{mount.source}" includes invalid characters for a local volume name, only '
                    '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
                    "use absolute path"
                )
        case MountType.TMPFS:
            _validate_tmpfs(mount)


def _validate_tmpfs(mount: Mount) -> None:
    if mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    options = mount.tmpfs_options
    if options and (options.size_bytes < 0 or not 0 <= options.mode <= 0o7777):
        raise InvalidArgument(f"invalid tmpfs options for {mount.target}: size or mode out of range")


def _refuse_foreign_options(mount: Mount) -> None:
    given = {
        "BindOptions": (mount.bind_options, MountType.BIND),
        "VolumeOptions": (mount.volume_options, MountType.VOLUME),
        "TmpfsOptions": (mount.tmpfs_options, MountType.TMPFS),
    }
    for name, (options, kind) in given.items():
        if options is not None and mount.type is not kind:
            raise InvalidArgument(
                f'invalid mount config for type "{mount.type}": field {name} must not be specified'
            )


def _check_path(mount: Mount, what: str, path: str) -> None:
    if not path.startswith("/"):
        raise InvalidArgument(
            f"invalid mount {what} '{path}' for type \"{mount.type}\": mount path must be absolute"
        )
    if _CONTROL.search(path):
        raise InvalidArgument(f"invalid mount {what} {path!r}: control characters in the path")
    if ".." in path.split("/"):
        raise InvalidArgument(f"invalid mount {what} '{path}': '..' is not allowed in the path")


def _normal_path(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


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
        if port.published_port in CLUSTER_PORTS[port.protocol]:
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
