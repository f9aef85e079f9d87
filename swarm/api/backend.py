"""What the API needs from the rest of the daemon: protocols and the values that cross them.

The API is the consumer, so it declares them. `Swarm` is this node's membership, `ClusterControl` the
cluster's objects (managers only), `Logs` the tasks' output wherever they run, `Engine` this node's images and
containers.

Invariant: nothing here imports an implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from swarm.api.diagnosis import System
from swarm.api.payloads import PayloadControl, PayloadVersions
from swarm.base.ids import NodeID
from swarm.base.log import Secret
from swarm.model.events import Event, Position
from swarm.model.execs import ExecConfig, ExecInput, ExecOutput
from swarm.model.explanation import Explanation
from swarm.model.objects import Cluster, JoinTokens, LimitedToken, Network, Service
from swarm.model.rotate import NOTHING, Rotate, TokenRequest
from swarm.model.specs import ClusterSpec, NetworkSpec, NodeSpec, ServiceSpec
from swarm.model.types import Availability, Platform, PortConfig, TLSInfo
from swarm.model.view import ClusterView

# --- membership -----------------------------------------------------------------------------------------


class NodeMembership(StrEnum):
    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerPeer:
    node_id: str
    addr: str
    """host:port of its join server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmStatus:
    state: NodeMembership = NodeMembership.INACTIVE
    node_id: str = ""
    node_addr: str = ""
    """The address that this node advertises, without a port."""
    is_manager: bool = False
    """This node serves cluster state."""
    leader_id: str = ""
    managers: tuple[ManagerPeer, ...] = ()
    error: str = ""
    """Why the state is `error` or cluster state cannot be served just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalStore:
    """An etcd cluster that exists; the files are on the manager's host."""

    endpoints: tuple[str, ...]
    ca_file: str
    cert_file: str
    key_file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InitRequest:
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_address_pools: tuple[str, ...] = ()
    subnet_size: int = 0
    availability: Availability = Availability.ACTIVE
    force_new_cluster: bool = False
    """Recover: this manager's state, without the other managers."""
    external_store: ExternalStore | None = None
    spec: ClusterSpec = field(default_factory=ClusterSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: tuple[str, ...] = ()
    token: Secret
    availability: Availability = Availability.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    place: InitRequest
    """Its addresses; all else comes from the backup."""
    archive: bytes = field(repr=False)
    key: Secret
    """The passphrase, or the unlock key, whichever the backup was made with."""


class Swarm(Protocol):
    def status(self) -> SwarmStatus: ...

    async def init(self, request: InitRequest) -> NodeID:
        """Start a cluster with this node. Raises Unavailable if it is in one already."""
        ...

    async def join(self, request: JoinRequest) -> None:
        """Join a cluster. Raises Unavailable if in one already, or when it takes too long."""
        ...

    async def leave(self, *, force: bool) -> None:
        """Leave. Raises Unavailable for a manager without `force`, and outside of a swarm."""
        ...

    async def unlock(self, key: Secret) -> None:
        """Open a locked manager. Raises AlreadyExists when it is not, InvalidArgument, Unauthenticated."""
        ...

    def backup(self, passphrase: Secret) -> bytes:
        """All cluster state, encrypted; with the unlock key when the passphrase is empty. Slow."""
        ...

    async def restore(self, request: RestoreRequest) -> NodeID:
        """Found a backup's cluster again. Raises as init, and before any write for a bad file or key."""
        ...

    def join_tokens(self, cluster: Cluster) -> JoinTokens:
        """The whole `SWMTKN-1-...` texts."""
        ...

    def token_text(self, cluster: Cluster, token: LimitedToken) -> str:
        """The whole `SWMTKN-1-...` text of a limited token."""
        ...

    def tls_info(self, cluster: Cluster) -> TLSInfo:
        """The cluster's root."""
        ...


# --- the cluster's objects ------------------------------------------------------------------------------


class ClusterControl(Protocol):
    @property
    def view(self) -> ClusterView: ...

    @property
    def payloads(self) -> PayloadControl: ...

    @property
    def payload_versions(self) -> PayloadVersions: ...

    async def sync(self) -> None:
        """Bring `view` up to what a quorum has acknowledged by now. Raises: NoQuorum."""
        ...

    def is_reachable(self, node_id: NodeID) -> bool:
        """Whether that manager has been heard of lately."""
        ...

    def cluster(self) -> Cluster: ...

    def explain_service(self, reference: str) -> Explanation:
        """Why the service is not as it was asked for."""
        ...

    async def create_service(self, spec: ServiceSpec) -> Service: ...

    async def update_service(
        self, reference: str, version: int, spec: ServiceSpec, auth_from: str = ""
    ) -> None:
        """`auth_from`: `spec` or `previous-spec`, whose credentials stay when `spec` brings none."""
        ...

    async def rollback_service(self, reference: str, version: int) -> None: ...

    async def resume_service(self, reference: str, version: int) -> None: ...

    async def rebalance_service(self, reference: str) -> int:
        """How many tasks are moved."""
        ...

    async def remove_service(self, reference: str) -> None: ...

    async def create_network(self, spec: NetworkSpec) -> Network: ...

    async def remove_network(self, reference: str) -> None: ...

    async def update_node(self, reference: str, version: int, spec: NodeSpec) -> None: ...

    async def remove_node(self, reference: str, *, force: bool = False) -> None: ...

    async def update_cluster(self, version: int, spec: ClusterSpec, rotate: Rotate = NOTHING) -> None: ...

    def unlock_key(self) -> str:
        """Empty without autolock."""
        ...

    async def confirm_unlock_key(self, key: str) -> None:
        """A client has got it: from now on it alone opens the managers' locks."""
        ...

    async def create_token(self, request: TokenRequest) -> LimitedToken: ...

    async def remove_token(self, token_id: str) -> None: ...


# --- output ---------------------------------------------------------------------------------------------


class LogStream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    streams: frozenset[LogStream] = frozenset(LogStream)
    follow: bool = False
    tail: int | None = None
    """Last lines of each task; None means all."""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSelector:
    """Tasks by id, or all tasks of a service: while following, also those it gets later."""

    service_id: str = ""
    task_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMessage:
    """One line of one task. `data` has no newline at its end."""

    task_id: str
    node_id: str
    service_id: str
    stream: LogStream
    timestamp: datetime
    data: bytes


class Logs(Protocol):
    def read(
        self, selector: LogSelector, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[LogMessage]]:
        """The lines, oldest first per task; closing the context ends the subscription."""
        ...


class Events(Protocol):
    def read(
        self, since: Position | datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[Event]:
        """What happened after a position, since a time, or from now on; until then, or without end."""
        ...


# --- commands in running tasks ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    task_id: str
    config: ExecConfig
    streams: frozenset[LogStream] = frozenset(LogStream)
    """What of its output is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecState:
    id: str
    request: ExecRequest
    is_started: bool = False
    is_running: bool = False
    exit_code: int | None = None


class Execs(Protocol):
    def create(self, request: ExecRequest) -> str:
        """Its id. Raises: FailedPrecondition when the task does not run."""
        ...

    def get(self, exec_id: str) -> ExecState:
        """Raises: NotFound."""
        ...

    def start(
        self, exec_id: str, config: ExecConfig, inputs: AsyncIterator[ExecInput]
    ) -> AbstractAsyncContextManager[AsyncIterator[ExecOutput]]:
        """The command runs while the context is open; `config` is what it was created with, or near it.

        Raises: as `ExecRunner`.
        """
        ...

    async def start_detached(self, exec_id: str) -> None:
        """Returns when it has been sent on its way; it goes on whatever becomes of the client."""
        ...


# --- this node's images and containers ------------------------------------------------------------------


class ImageConfig(Protocol):
    @property
    def env(self) -> tuple[str, ...]: ...
    @property
    def cmd(self) -> tuple[str, ...]: ...
    @property
    def entrypoint(self) -> tuple[str, ...]: ...
    @property
    def user(self) -> str: ...
    @property
    def working_dir(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def exposed_ports(self) -> tuple[str, ...]:
        """`80/tcp`."""
        ...

    @property
    def volumes(self) -> tuple[str, ...]: ...
    @property
    def stop_signal(self) -> str: ...


class Image(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def repo_tags(self) -> tuple[str, ...]: ...
    @property
    def repo_digests(self) -> tuple[str, ...]: ...
    @property
    def created(self) -> datetime: ...
    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def architecture(self) -> str: ...
    @property
    def os(self) -> str: ...
    @property
    def layers(self) -> tuple[str, ...]:
        """diff ids, lowest first."""
        ...

    @property
    def config(self) -> ImageConfig: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAuth:
    username: str
    password: Secret


class Distribution(Protocol):
    """What a registry says of a reference."""

    @property
    def digest(self) -> str: ...
    @property
    def media_type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def platforms(self) -> tuple[Platform, ...]: ...


class PullProgress(Protocol):
    @property
    def id(self) -> str:
        """A layer's short digest, or the tag; empty for the pull as a whole."""
        ...

    @property
    def status(self) -> str: ...


class RemovedImage(Protocol):
    @property
    def kind(self) -> str:
        """`untagged` or `deleted`."""
        ...

    @property
    def name(self) -> str: ...


class Images(Protocol):
    def list(self) -> Sequence[Image]: ...

    def get(self, name_or_id: str) -> Image:
        """By name, id or id prefix. Raises NotFound: `No such image: x:latest`."""
        ...

    async def load(self, source: AsyncIterable[bytes]) -> Sequence[Image]: ...

    async def pull(
        self, reference: str, auth: RegistryAuth | None, progress: Callable[[PullProgress], None]
    ) -> Image: ...

    async def remove(self, name_or_id: str, *, force: bool) -> Sequence[RemovedImage]: ...

    async def resolve(self, reference: str, auth: RegistryAuth | None) -> Distribution: ...


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMount:
    type: str
    source: str
    destination: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A task's container on this node."""

    id: str
    name: str
    image: str
    image_id: str = ""
    command: tuple[str, ...] = ()
    created_at: datetime
    state: ContainerState
    started_at: datetime | None = None
    finished_at: datetime | None = None
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    env: tuple[str, ...] = ()
    hostname: str = ""
    user: str = ""
    working_dir: str = ""
    ports: tuple[PortConfig, ...] = ()
    mounts: tuple[ContainerMount, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)
    """Network name -> address with prefix."""
    log_path: str = ""
    stop_grace_period: timedelta = timedelta(seconds=10)


class Containers(Protocol):
    def list(self) -> Sequence[Container]:
        """All of them, also the ended ones, newest first."""
        ...

    def logs(
        self, container_id: str, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[LogMessage]]: ...


class NodeNetworks(Protocol):
    """The config-only networks of this node, in a swarm or not."""

    def list(self) -> Sequence[Network]: ...

    def find(self, reference: str) -> Network | None:
        """By name or id."""
        ...

    def create(self, spec: NetworkSpec) -> Network:
        """Raises: InvalidArgument, AlreadyExists."""
        ...

    def remove(self, reference: str) -> None:
        """Raises: NotFound, FailedPrecondition while a task of this node uses it."""
        ...


class Engine(Protocol):
    @property
    def state_dir(self) -> str: ...

    @property
    def runtime(self) -> str:
        """`crun` or `runc`."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """`KEY=VALUE`, as the host's owner gave them to swarmd."""
        ...

    @property
    def insecure_registries(self) -> tuple[str, ...]:
        """`host[:port]` of registries that may be asked without TLS."""
        ...

    @property
    def images(self) -> Images: ...

    @property
    def containers(self) -> Containers: ...

    @property
    def networks(self) -> NodeNetworks: ...


class Backend(Protocol):
    """All of it. `control`, `logs` and `events` are None where this node serves no cluster state."""

    @property
    def swarm(self) -> Swarm: ...

    @property
    def control(self) -> ClusterControl | None: ...

    @property
    def logs(self) -> Logs | None: ...

    @property
    def events(self) -> Events | None: ...

    @property
    def execs(self) -> Execs: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def system(self) -> System: ...
