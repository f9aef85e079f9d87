"""Small immutable values that specs and objects are made of. Names and meanings are the Docker Engine API's.

Durations are `timedelta`, sizes end in `_bytes`, CPU is counted in `nano_cpus` (10^9 = one core).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from swarm.model.container import Driver


class NodeRole(StrEnum):
    WORKER = "worker"
    MANAGER = "manager"


class Availability(StrEnum):
    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class NodeState(StrEnum):
    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class PublishMode(StrEnum):
    INGRESS = "ingress"
    HOST = "host"


class MountType(StrEnum):
    VOLUME = "volume"
    BIND = "bind"
    TMPFS = "tmpfs"


class RestartCondition(StrEnum):
    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


class UpdateOrder(StrEnum):
    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class FailureAction(StrEnum):
    PAUSE = "pause"
    CONTINUE = "continue"
    ROLLBACK = "rollback"


class UpdateState(StrEnum):
    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """`index` is the store revision of the last write to the object; updates must quote it."""

    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    version: Version = field(default_factory=Version)
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    architecture: str = ""
    os: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedGenericResource:
    kind: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteGenericResource:
    kind: str = ""
    value: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericResource:
    """Something that a node has (a GPU by name, or so many of a kind); exactly one field is set."""

    named_resource_spec: NamedGenericResource | None = None
    discrete_resource_spec: DiscreteGenericResource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0
    """Only as a limit; 0 means the cluster's default."""
    generic_resources: tuple[GenericResource, ...] = ()
    """Only as a reservation, and of a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequirements:
    limits: Resources = field(default_factory=Resources)
    reservations: Resources = field(default_factory=Resources)
    swap_bytes: int | None = None
    """Swap beside the memory limit; -1 for without limit."""
    memory_swappiness: int | None = None
    """0-100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    condition: RestartCondition = RestartCondition.ANY
    delay: timedelta = timedelta(seconds=5)
    max_attempts: int = 0
    """0 means without limit."""
    window: timedelta = timedelta(0)
    """Attempts older than this are forgotten; 0 means none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConfig:
    """How an update, or a rollback, goes from task to task."""

    parallelism: int = 1
    """Slots at once; 0 for all."""
    delay: timedelta = timedelta(0)
    failure_action: FailureAction = FailureAction.PAUSE
    monitor: timedelta = timedelta(0)
    """A task that fails within this time after it ran counts as the update's failure; 0 means 5 s."""
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatus:
    state: UpdateState = UpdateState.UPDATING
    started_at: datetime | None = None
    completed_at: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    job_iteration: Version = field(default_factory=Version)
    """Raised by every update of a job: its tasks are run anew."""
    last_execution: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadOver:
    spread_descriptor: str = ""
    """`node.labels.K` or `engine.labels.K`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPreference:
    spread: SpreadOver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    constraints: tuple[str, ...] = ()
    preferences: tuple[PlacementPreference, ...] = ()
    platforms: tuple[Platform, ...] = ()
    max_replicas: int = 0
    """Most tasks of the service on one node; 0 means without limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions:
    no_copy: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    driver_config: Driver | None = None
    subpath: str = ""
    """Only this directory or file of the volume is mounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindOptions:
    propagation: str = ""
    create_mountpoint: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    """Read-only stops at what is mounted below the source."""
    read_only_force_recursive: bool = False
    """Refused where what is mounted below cannot be made read-only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsOptions:
    size_bytes: int = 0
    mode: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    type: MountType = MountType.VOLUME
    source: str = ""
    target: str = ""
    read_only: bool = False
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortConfig:
    name: str = ""
    protocol: Protocol = Protocol.TCP
    target_port: int = 0
    published_port: int = 0
    """0 asks for one: 30000-32767 in ingress mode, one of the node's in host mode."""
    publish_mode: PublishMode = PublishMode.INGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    mode: str = ""
    """`vip` (also when empty): one address stands for all tasks; `dnsrr`: the name gives the tasks' own."""
    ports: tuple[PortConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualIP:
    network_id: str = ""
    addr: str = ""
    """CIDR, as clients parse it strictly."""

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.addr


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What the allocator gave a service: the ports it really has."""

    spec: EndpointSpec = field(default_factory=EndpointSpec)
    ports: tuple[PortConfig, ...] = ()
    virtual_ips: tuple[VirtualIP, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAMConfig:
    """One subnet of a network: as asked for, or as allocated (then `subnet` and `gateway` are set)."""

    subnet: str = ""
    """CIDR."""
    ip_range: str = ""
    """CIDR inside `subnet`: the allocator gives addresses of this part only; empty for the whole."""
    gateway: str = ""
    """An address that nobody gets; Docker shows it. Empty: the subnet's first."""
    auxiliary_addresses: Mapping[str, str] = field(default_factory=dict)
    """Name to address: never given to a task."""

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachmentConfig:
    """A network as a service asks for it."""

    target: str = ""
    """The network's id; users may also write its name."""
    aliases: tuple[str, ...] = ()
    """Further names of the service on this network."""
    driver_opts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachment:
    network_id: str = ""
    addresses: tuple[str, ...] = ()
    """CIDR, the prefix being the network's: one of IPv4, then that of IPv6 if the network has any."""
    subnets: tuple[str, ...] = ()
    """All of the network's when it has several: a task reaches each directly, as its own."""
    internal: bool = False
    """Nothing leads out of the network."""
    config_from: str = ""
    """The node gives the address, by its own settings of this name; `addresses` is empty then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    engine_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSInfo:
    trust_root: str = ""
    """PEM of the root that the node trusts."""
    cert_issuer_subject: bytes = b""
    cert_issuer_public_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKey:
    """The public half of a key that a host made for its encrypted tunnels."""

    generation: int = 0
    public_key: str = ""
    """32 bytes of X25519, in base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """Which generation of tunnel keys the cluster is at; 0 while no network is encrypted."""

    generation: int = 0
    """Hosts send under their keys of this one."""
    is_preparing: bool = False
    """Hosts make keys of the next generation, and tell them."""
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    """What an agent says of its host when its session opens."""

    hostname: str = ""
    platform: Platform = field(default_factory=Platform)
    resources: Resources = field(default_factory=Resources)
    engine: EngineDescription = field(default_factory=EngineDescription)
    tls_info: TLSInfo = field(default_factory=TLSInfo)
    data_path_address: str = ""
    """Where the host's VXLAN packets come from and go to."""
    tunnel_keys: tuple[TunnelKey, ...] = ()
    """Of the present generation and, while there are two, the next or the last."""
    encryption_problem: str = ""
    """Why the host cannot carry encrypted networks; empty if it can."""
    store_state: str = ""
    """What is wrong with its member of the managers' store, in a word; empty while nothing is known to be."""
    store_problem: str = ""
    """The same in a sentence."""
    subnets: tuple[str, ...] = ()
    """What the host itself has routes to, but for networks of the swarm: no overlay may overlap them."""
