"""What the store keeps. All immutable; a change is a new object written over the version it was read at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from swarm.base.ids import ClusterID, ConfigID, NetworkID, NodeID, SecretID, ServiceID, TaskID
from swarm.model.container import Driver
from swarm.model.specs import (
    ClusterSpec,
    ConfigSpec,
    NetworkSpec,
    NodeSpec,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.task_state import TaskState
from swarm.model.types import (
    Encryption,
    Endpoint,
    GenericResource,
    IPAMConfig,
    JobStatus,
    Meta,
    NetworkAttachment,
    NodeDescription,
    NodeRole,
    NodeState,
    PortConfig,
    UpdateStatus,
    Version,
)

NO_SERVICE = ServiceID("")
NO_NODE = NodeID("")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingStatus:
    at: datetime | None = None
    replicas: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    id: ServiceID
    meta: Meta = field(default_factory=Meta)
    spec: ServiceSpec = field(default_factory=ServiceSpec)
    spec_version: Version = field(default_factory=Version)
    """Changes only when the task template does, so that a task made from it can be told up to date."""
    previous_spec: ServiceSpec | None = None
    previous_spec_version: Version = field(default_factory=Version)
    """The `spec_version` that went with `previous_spec`: a rollback takes it up again."""
    endpoint: Endpoint = field(default_factory=Endpoint)
    update_status: UpdateStatus | None = None
    """None until the first update."""
    job_status: JobStatus | None = None
    """Of jobs only."""
    scaling: ScalingStatus | None = None
    """Of services that scale by themselves: the last decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    timestamp: datetime | None = None
    state: TaskState = TaskState.NEW
    message: str = ""
    err: str = ""
    container: ContainerStatus | None = None
    ports: tuple[PortConfig, ...] = ()
    """Host-mode ports as the node really bound them."""
    is_unhealthy: bool = False
    """Its health check has failed for good: it is about to be stopped and gets no more connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: TaskID
    meta: Meta = field(default_factory=Meta)
    spec: TaskSpec = field(default_factory=TaskSpec)
    spec_version: Version = field(default_factory=Version)
    """The service's `spec_version` that the task was made from."""
    service_id: ServiceID = NO_SERVICE
    service_name: str = ""
    service_labels: Mapping[str, str] = field(default_factory=dict)
    slot: int = 0
    """From 1; 0 for a task of a global service."""
    node_id: NodeID = NO_NODE
    status: TaskStatus = field(default_factory=TaskStatus)
    desired_state: TaskState = TaskState.RUNNING
    start_after: datetime | None = None
    """A restart's delay: the orchestrator raises `desired_state` from READY to RUNNING no earlier."""
    attachments: tuple[NetworkAttachment, ...] = ()
    endpoint: Endpoint = field(default_factory=Endpoint)
    """The service's allocated ports when the task was made."""
    job_iteration: Version | None = None
    """Of a job's task: the run that it belongs to."""
    assigned_generic_resources: tuple[GenericResource, ...] = ()
    """What the scheduler took for it from its node."""
    running_since: datetime | None = None
    """When the leader first saw it running; written only while the service is updated."""
    failed_update: datetime | None = None
    """The start of the update whose failure this task's end was."""
    leaving: bool = False
    """It is to be replaced elsewhere, in the service's update order: its node no longer meets what it asks
    for, or it is moved to even the nodes out."""

    @property
    def name(self) -> str:
        """`web.1.<task id>`, or `web.<node id>.<task id>` for a global service: the container's name."""
        return f"{self.service_name}.{self.slot or self.node_id}.{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    addr: str = ""
    """Source address of the node's session as the manager saw it."""
    changed_at: datetime | None = None
    manager_id: NodeID = NO_NODE
    """The manager that holds, or held last, the node's session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerStatus:
    """Set while the node is a voter of the managers' store."""

    addr: str = ""
    """Where the node serves joins: host:port."""
    member_id: str = ""
    """Its etcd member, in hexadecimal; empty with a store that others run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: NodeID
    meta: Meta = field(default_factory=Meta)
    spec: NodeSpec = field(default_factory=NodeSpec)
    description: NodeDescription = field(default_factory=NodeDescription)
    status: NodeStatus = field(default_factory=NodeStatus)
    manager_status: ManagerStatus | None = None
    certificate_key_digest: str = ""
    """SHA-256 (hex) of the public key first certified: a replayed join gives the same node."""
    attachments: tuple[NetworkAttachment, ...] = ()
    """The host's own addresses on overlays it has a leg in (ingress)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    id: NetworkID
    meta: Meta = field(default_factory=Meta)
    spec: NetworkSpec = field(default_factory=NetworkSpec)
    ipam: tuple[IPAMConfig, ...] = ()
    """The subnets that it was given; empty until it has been allocated."""
    vni: int = 0
    """Of an overlay: one for all of its subnets."""
    is_removed: bool = False
    """By its user: it has no name any more, and goes when its last task has left."""
    err: str = ""
    """Why it could not be allocated."""

    @property
    def subnets(self) -> tuple[str, ...]:
        """Of IPv4."""
        return tuple(config.subnet for config in self.ipam if not config.is_ipv6)

    @property
    def ipv6_subnet(self) -> str:
        """Empty where it has none."""
        return next((config.subnet for config in self.ipam if config.is_ipv6), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Never holds the data, so that no answer, event or log line made from it can."""

    id: SecretID
    meta: Meta = field(default_factory=Meta)
    spec: SecretSpec = field(default_factory=SecretSpec)
    current: int = 1
    """The version that references without one mean."""
    last: int = 1
    """The highest version ever made: numbers are not used twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    id: ConfigID
    meta: Meta = field(default_factory=Meta)
    spec: ConfigSpec = field(default_factory=ConfigSpec)
    current: int = 1
    """As with secrets."""
    last: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The bytes of one version of a secret or a config."""

    id: str
    """`payload_id` of its owner and number."""
    meta: Meta = field(default_factory=Meta)
    data: bytes = field(default=b"", repr=False)
    is_template: bool = False
    """Set on its way to a node, where it is expanded for each task."""
    driver: Driver | None = None
    """As well: the node asks it for the data, task by task."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The secret's, for its driver."""


def payload_id(owner_id: str, number: int) -> str:
    """Under which id the version `number` of the secret or config `owner_id` is stored."""
    return f"{owner_id}.{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokens:
    """The secrets inside the SWMTKN tokens, as stored (encrypted like everything stored)."""

    worker: str = ""
    manager: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedToken:
    """A join token beside the two lasting ones: for a time, for some nodes, with labels for them."""

    id: str = ""
    """What users name it by; it lets nobody in."""
    secret: str = ""
    role: NodeRole = NodeRole.WORKER
    expires_at: datetime | None = None
    uses: int = 0
    """How many nodes it lets in; 0 for any number."""
    labels: Mapping[str, str] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()
    """The nodes it has let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRotation:
    """The way to another root: trusted first, it issues for workers, for managers, then the old one goes."""

    ca_key_pem: bytes = b""
    ca_cert_pem: bytes = b""
    is_issuing: bool = False
    """For workers: every node that is up trusts it."""
    is_trusted: bool = False
    """By every node: it issues for managers, too."""
    given_up_pem: bytes = b""
    """Roots of rotations that this one replaced: nodes may still hold certificates of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCA:
    ca_key_pem: bytes = b""
    ca_cert_pem: bytes = b""
    join_tokens: JoinTokens = field(default_factory=JoinTokens)
    limited_tokens: tuple[LimitedToken, ...] = ()
    rotation: RootRotation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    id: ClusterID
    meta: Meta = field(default_factory=Meta)
    spec: ClusterSpec = field(default_factory=ClusterSpec)
    root_ca: RootCA = field(default_factory=RootCA)
    default_address_pools: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 20
    """Room for 4,000 tasks; Swarm's /24 fills at about 250 (moby#31019)."""
    data_path_port: int = 4789
    generation: int = 1
    """Raised when the cluster is recovered from one manager: agents refuse managers of an older one."""
    unlock_key: str = field(default="", repr=False)
    """`SWMKEY-1-…` while the managers lock their keys on disk, else empty."""
    next_unlock_key: str = field(default="", repr=False)
    """Made, and not known to have been read by anybody: until then what opened the locks before does, too."""
    encryption: Encryption = field(default_factory=Encryption)


StoredObject = Service | Task | Node | Network | Cluster | Secret | Config | Payload
"""Every kind of object that the store keeps."""
