"""What users ask for. A spec is the user's: the system stores it, echoes it and never edits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from swarm.base.ids import ConfigID, SecretID
from swarm.model.container import DNSConfig, Driver, HealthConfig, Privileges, PullOptions, Ulimit
from swarm.model.types import (
    Availability,
    EndpointSpec,
    IPAMConfig,
    Mount,
    NetworkAttachmentConfig,
    NodeRole,
    Placement,
    ResourceRequirements,
    RestartPolicy,
    UpdateConfig,
)

NO_SECRET = SecretID("")
NO_CONFIG = ConfigID("")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTarget:
    """The file that a container gets: a name below the usual directory, or an absolute path."""

    name: str = ""
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretReference:
    file: FileTarget | None = None
    secret_id: SecretID = NO_SECRET
    secret_name: str = ""
    version: int = 0
    """Which version of the secret; 0 in a service's spec follows the secret, in a task's it is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReference:
    file: FileTarget | None = None
    config_id: ConfigID = NO_CONFIG
    config_name: str = ""
    version: int = 0
    """As with secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    """Replaces the image's entrypoint when not empty."""
    args: tuple[str, ...] = ()
    hostname: str = ""
    env: tuple[str, ...] = ()
    """`KEY=value`; a bare `KEY` removes the image's variable."""
    dir: str = ""
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    stop_signal: str = ""
    stop_grace_period: timedelta | None = None
    groups: tuple[str, ...] = ()
    privileges: Privileges | None = None
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    """The root file system cannot be written to."""
    healthcheck: HealthConfig | None = None
    hosts: tuple[str, ...] = ()
    """Lines of /etc/hosts: `address name [name …]`."""
    dns_config: DNSConfig | None = None
    oom_score_adj: int = 0
    init: bool | None = None
    """A small init as process 1 that reaps and forwards signals."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    """`CAP_…`; `ALL` in both means all of them."""
    ulimits: tuple[Ulimit, ...] = ()
    secrets: tuple[SecretReference, ...] = ()
    configs: tuple[ConfigReference, ...] = ()
    pull_options: PullOptions | None = None
    """Internal: comes beside the spec in `X-Registry-Auth`, and is kept when an update brings none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    container_spec: ContainerSpec = field(default_factory=ContainerSpec)
    resources: ResourceRequirements | None = None
    restart_policy: RestartPolicy | None = None
    placement: Placement | None = None
    force_update: int = 0
    log_driver: Driver | None = None
    networks: tuple[NetworkAttachmentConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedMode:
    replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalMode:
    """One task on every eligible node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedJob:
    """Tasks that run to completion, so many in all and so many at once."""

    max_concurrent: int | None = None
    """None: one."""
    total_completions: int | None = None
    """None: as many as `max_concurrent`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalJob:
    """One task run to completion on every eligible node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMode:
    """Exactly one field is set."""

    replicated: ReplicatedMode | None = None
    global_: GlobalMode | None = None
    replicated_job: ReplicatedJob | None = None
    global_job: GlobalJob | None = None

    @property
    def is_job(self) -> bool:
        return self.replicated_job is not None or self.global_job is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    task_template: TaskSpec = field(default_factory=TaskSpec)
    mode: ServiceMode = field(default_factory=lambda: ServiceMode(replicated=ReplicatedMode()))
    endpoint_spec: EndpointSpec | None = None
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    role: NodeRole = NodeRole.WORKER
    availability: Availability = Availability.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = "overlay"
    options: Mapping[str, str] = field(default_factory=dict)
    """The driver's: see `swarm.model.network`."""
    ipam: tuple[IPAMConfig, ...] = ()
    """Empty, or without a subnet, asks for one from the cluster's pools."""
    internal: bool = False
    """No way out of it: its tasks reach each other only."""
    attachable: bool = False
    """Single containers may be attached to it."""
    ingress: bool = False
    """The network that published ports are served through; a cluster has at most one."""
    config_only: bool = False
    """No network but settings that others refer to by `config_from`."""
    config_from: str = ""
    """Name of the config-only network of each node that holds this one's settings there."""
    enable_ipv6: bool = False
    """Every IPv4 address on it has an IPv6 address beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    data: bytes = field(default=b"", repr=False)
    """Only on its way in: what is stored of it is a `Payload`."""
    driver: Driver | None = None
    """Whence the data comes instead; none stands for the store."""
    templating: Driver | None = None
    """`golang`: the data is a template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSpec:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    data: bytes = field(default=b"", repr=False)
    """As with secrets."""
    templating: Driver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    name: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    task_history_retention_limit: int = 5
    """Dead tasks kept per slot; negative keeps all. SwarmKit keeps 5."""
    heartbeat_period: timedelta = timedelta(seconds=1)
    """How often an agent reports; a node silent for four periods is down. SwarmKit: 5 s and three."""
    node_cert_expiry: timedelta = timedelta(days=90)
    auto_lock_managers: bool = False
    """A manager that restarts needs the unlock key before it can read its keys and state."""
    force_rotate: int = 0
    """Raised by whoever wants the certificate authority replaced by a new one."""
