"""What the API stands on, in memory: membership, logs, images and containers of one manager or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from swarm.api.backend import (
    ClusterControl,
    Container,
    ContainerState,
    InitRequest,
    JoinRequest,
    LogMessage,
    LogOptions,
    LogSelector,
    LogStream,
    ManagerPeer,
    NodeMembership,
    PullProgress,
    RegistryAuth,
    SwarmStatus,
)
from swarm.api.diagnosis import Capability, KeyRotation, RuntimeReport, StoreReport, SystemReport
from swarm.base.clock import FakeClock
from swarm.base.errors import AlreadyExists, NotFound, SwarmError, Unavailable
from swarm.base.ids import NetworkID, NodeID, SequentialIds
from swarm.manager.control import Control
from swarm.manager.events.ring import EventRing
from swarm.model.events import Event, Position
from swarm.model.network_rules import validate_node_settings
from swarm.model.objects import (
    Cluster,
    ContainerStatus,
    JoinTokens,
    ManagerStatus,
    Network,
    Node,
    NodeStatus,
    RootCA,
    Service,
    Task,
    TaskStatus,
)
from swarm.model.specs import NetworkSpec, NodeSpec
from swarm.model.task_state import TaskState
from swarm.model.types import (
    EngineDescription,
    IPAMConfig,
    Meta,
    NetworkAttachment,
    NodeDescription,
    NodeRole,
    NodeState,
    Platform,
    Resources,
    TLSInfo,
)
from swarm.node.execs import HostExecs
from swarm.worker.execs import Execs
from tests.fakes.fake_exec import FakeExecContainers
from tests.fakes.fake_store import FakeStore

START = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1 << 30


def a_node(number: int, role: NodeRole = NodeRole.WORKER, state: NodeState = NodeState.READY) -> Node:
    manager = ManagerStatus(addr=f"10.7.0.{number}:2377") if role is NodeRole.MANAGER else None
    return Node(
        id=NodeID(f"node{number}".ljust(25, "0")),
        spec=NodeSpec(role=role),
        description=NodeDescription(
            hostname=f"h{number}",
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=2_000_000_000, memory_bytes=4 * GIB),
            engine=EngineDescription(engine_version="0.1.0"),
            tls_info=TLSInfo(trust_root="PEM", cert_issuer_subject=b"s", cert_issuer_public_key=b"k"),
        ),
        status=NodeStatus(state=state, addr=f"10.7.0.{number}"),
        manager_status=manager,
    )


def ingress() -> Network:
    return Network(
        id="ingress".ljust(25, "0"),
        spec=NetworkSpec(name="ingress", ingress=True),
        ipam=(IPAMConfig(subnet="10.0.0.0/20", gateway="10.0.0.1"),),
        vni=4096,
    )


def a_task(service: Service, slot: int, node: Node, state: TaskState = TaskState.RUNNING) -> Task:
    task_id = f"{service.id[-8:]}task{slot:013d}"
    return Task(
        id=task_id,
        spec=service.spec.task_template,
        spec_version=service.spec_version,
        service_id=service.id,
        service_name=service.spec.name,
        service_labels=service.spec.labels,
        slot=slot,
        node_id=node.id,
        status=TaskStatus(
            timestamp=START,
            state=state,
            message="started",
            container=ContainerStatus(container_id=task_id, pid=7),
        ),
        attachments=(NetworkAttachment(network_id=ingress().id, addresses=(f"10.0.1.{slot}/20",)),),
        endpoint=service.endpoint,
    )


class FakeSwarm:
    def __init__(self, owner: FakeBackend) -> None:
        self._owner = owner
        self.inits: list[InitRequest] = []
        self.joins: list[JoinRequest] = []
        self.state = NodeMembership.INACTIVE
        self.error = ""

    def status(self) -> SwarmStatus:
        is_active = self.state is NodeMembership.ACTIVE
        me = self._owner.me.id if is_active else ""
        return SwarmStatus(
            state=self.state,
            node_id=me,
            node_addr="10.7.0.1" if is_active else "",
            is_manager=self._owner.control is not None,
            leader_id=me,
            managers=(ManagerPeer(node_id=me, addr="10.7.0.1:2377"),) if is_active else (),
            error=self.error,
        )

    async def init(self, request: InitRequest) -> NodeID:
        if self.state is not NodeMembership.INACTIVE:
            raise Unavailable(
                'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm '
                "and join another one."
            )
        self.inits.append(request)
        self._owner.start_cluster()
        return self._owner.me.id

    async def join(self, request: JoinRequest) -> None:
        self.joins.append(request)
        self.state = NodeMembership.ACTIVE

    async def leave(self, *, force: bool) -> None:
        if self.state is NodeMembership.INACTIVE:
            raise Unavailable("This node is not part of a swarm")
        if self._owner.control is not None and not force:
            raise Unavailable(
                "You are attempting to leave the swarm on a node that is participating as a manager."
            )
        self.state = NodeMembership.INACTIVE
        self._owner.control = None

    def join_tokens(self, cluster: Cluster) -> JoinTokens:
        tokens = cluster.root_ca.join_tokens
        prefix = "SWMTKN-1-" + "0" * 50
        return JoinTokens(worker=f"{prefix}-{tokens.worker}", manager=f"{prefix}-{tokens.manager}")

    def tls_info(self, cluster: Cluster) -> TLSInfo:
        return TLSInfo(trust_root="PEM", cert_issuer_subject=b"s", cert_issuer_public_key=b"k")


class FakeLogs:
    """Gives the messages it holds; when following it then waits for more that are put."""

    def __init__(self) -> None:
        self.messages: list[LogMessage] = []
        self.asked: list[tuple[LogSelector, LogOptions]] = []
        self.more: asyncio.Queue[LogMessage | Exception | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def read(
        self, selector: LogSelector, options: LogOptions
    ) -> AsyncIterator[AsyncIterator[LogMessage]]:
        self.asked.append((selector, options))

        async def messages() -> AsyncIterator[LogMessage]:
            for message in self.messages:
                yield message
            while options.follow and (item := await self.more.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item

        try:
            yield messages()
        finally:
            self.closed.set()


class FakeEvents:
    """A ring that tests fill; without `until` its readers wait for more."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._fresh = asyncio.Event()
        self.ring = EventRing(0, START)

    def happen(self, *events: Event) -> None:
        self.ring.append(events)
        self._fresh.set()

    async def read(
        self, since: Position | datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[Event]:
        cursor = self.ring.start(since, self._clock.now())
        while True:
            events, cursor = self.ring.read(cursor, self._clock.now())
            for event in events:
                yield event
            if until is not None:
                return
            await self._fresh.wait()
            self._fresh.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeImageConfig:
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ("httpd",)
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ("80/tcp",)
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeImage:
    id: str = "sha256:" + "ab" * 32
    repo_tags: tuple[str, ...] = ("127.0.0.1:5000/team/web:1",)
    repo_digests: tuple[str, ...] = ()
    created: datetime = START
    size: int = 1234
    architecture: str = "amd64"
    os: str = "linux"
    layers: tuple[str, ...] = ("sha256:" + "cd" * 32,)
    config: FakeImageConfig = field(default_factory=FakeImageConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeProgress:
    id: str = ""
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRemoved:
    kind: Literal["untagged", "deleted"]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeDistribution:
    digest: str = "sha256:" + "ef" * 32
    media_type: str = "application/vnd.oci.image.manifest.v1+json"
    size: int = 500
    platforms: tuple[Platform, ...] = (Platform(architecture="x86_64", os="linux"),)


class FakeImages:
    def __init__(self) -> None:
        self.images: list[FakeImage] = [FakeImage()]
        self.loaded = b""
        self.pulled: list[tuple[str, RegistryAuth | None]] = []
        self.pull_error: SwarmError | None = None
        self.late_error: SwarmError | None = None

    def list(self) -> Sequence[FakeImage]:
        return self.images

    def get(self, name_or_id: str) -> FakeImage:
        for image in self.images:
            if name_or_id == image.id or name_or_id in image.repo_tags:
                return image
        error = NotFound("image", name_or_id)
        error.args = (f"No such image: {name_or_id}",)
        raise error

    async def load(self, source: AsyncIterable[bytes]) -> Sequence[FakeImage]:
        self.loaded = b"".join([chunk async for chunk in source])
        return self.images

    async def pull(
        self, reference: str, auth: RegistryAuth | None, progress: Callable[[PullProgress], None]
    ) -> FakeImage:
        self.pulled.append((reference, auth))
        if self.pull_error:
            raise self.pull_error
        progress(FakeProgress(id="1", status="Pulling from team/web"))
        if self.late_error:
            raise self.late_error
        return self.images[0]

    async def remove(self, name_or_id: str, *, force: bool) -> Sequence[FakeRemoved]:
        image = self.get(name_or_id)
        self.images.remove(image)
        return (FakeRemoved(kind="untagged", name=name_or_id), FakeRemoved(kind="deleted", name=image.id))

    async def resolve(self, reference: str, auth: RegistryAuth | None) -> FakeDistribution:
        if "absent" in reference:
            raise NotFound("manifest", reference)
        return FakeDistribution()


class FakeContainers:
    def __init__(self, logs: FakeLogs) -> None:
        self.containers = [
            Container(
                id="c" * 25,
                name="web.1." + "c" * 25,
                image="web:1",
                command=("httpd", "-f"),
                created_at=START - timedelta(minutes=5),
                started_at=START - timedelta(minutes=5),
                state=ContainerState.RUNNING,
                pid=42,
                labels={"com.docker.swarm.service.name": "web"},
            )
        ]
        self._logs = logs

    def list(self) -> Sequence[Container]:
        return self.containers

    @asynccontextmanager
    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[AsyncIterator[LogMessage]]:
        async with self._logs.read(LogSelector(task_ids=(container_id,)), options) as messages:
            yield messages


class FakeNodeNetworks:
    """This node's config-only networks, in memory."""

    def __init__(self) -> None:
        self.networks: list[Network] = []

    def list(self) -> Sequence[Network]:
        return self.networks

    def find(self, reference: str) -> Network | None:
        return next((n for n in self.networks if reference in (n.id, n.spec.name)), None)

    def create(self, spec: NetworkSpec) -> Network:
        if self.find(spec.name) is not None:
            raise AlreadyExists(f"network with name {spec.name} already exists")
        validate_node_settings(spec)
        made = Network(id=NetworkID(f"local-{spec.name}"), meta=Meta(created_at=START), spec=spec)
        self.networks.append(made)
        return made

    def remove(self, reference: str) -> None:
        found = self.find(reference)
        if found is None:
            raise NotFound("network", reference)
        self.networks.remove(found)


class FakeEngine:
    state_dir = "/var/lib/swarm"
    runtime = "crun"
    labels = ("rack=r1",)
    insecure_registries = ("registry:5000",)

    def __init__(self, logs: FakeLogs) -> None:
        self.images = FakeImages()
        self.containers = FakeContainers(logs)
        self.networks = FakeNodeNetworks()


class FakeSystem:
    def __init__(self) -> None:
        self.store: StoreReport | None = None
        self.repair_steps: tuple[str | SwarmError, ...] = ("asking", "filling")
        """What a repair tells, or raises."""
        self.rotations = 0
        self.told: tuple[str, ...] = ()

    async def report(self) -> SystemReport:
        runtime = RuntimeReport(name="crun", path="/usr/bin/crun", reason="it runs here", cgroup_mode="v2")
        kernel = (Capability(name="vxlan", is_present=True, note="overlay networks"),)
        return SystemReport(store=self.store, runtime=runtime, capabilities=kernel, certificate_until=START)

    def warnings(self) -> tuple[str, ...]:
        return self.told

    async def repair(self, tell: Callable[[str], None]) -> None:
        for step in self.repair_steps:
            if isinstance(step, SwarmError):
                raise step
            tell(step)

    async def rotate_data_key(self) -> None:
        self.rotations += 1

    def key_rotation(self) -> KeyRotation:
        state = "resealing" if self.rotations else "none"
        return KeyRotation(state=state, key="k1", waits_for=(), left=self.rotations, total=3)


class EveryTask:
    """Each task that is asked for runs here."""

    def get(self, task_id: str) -> Task:
        return Task(id=task_id, status=TaskStatus(state=TaskState.RUNNING))


class FakeBackend:
    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.me = a_node(1, NodeRole.MANAGER)
        self.store = FakeStore(self.clock)
        self.control: ClusterControl | None = None
        self.swarm = FakeSwarm(self)
        self.logs = FakeLogs()
        self.events = FakeEvents(self.clock)
        self.engine = FakeEngine(self.logs)
        self.exec_containers = FakeExecContainers()
        self.local_execs = Execs(self.exec_containers, EveryTask())
        self.execs = HostExecs(lambda _: self.local_execs.run)
        self.system = FakeSystem()

    def start_cluster(self, workers: int = 2) -> None:
        """This node becomes the manager of a cluster with some workers."""
        tokens = JoinTokens(worker="w" * 25, manager="m" * 25)
        self.store.put(Cluster(id="cluster".ljust(25, "0"), root_ca=RootCA(join_tokens=tokens)))
        self.store.put(ingress())
        for node in (self.me, *(a_node(number + 2) for number in range(workers))):
            self.store.put(node)
        self.control = Control(self.store, self.clock, SequentialIds("id"), lambda _: True)
        self.swarm.state = NodeMembership.ACTIVE

    def run_tasks(self, name: str, count: int) -> None:
        """What the orchestrator, scheduler and agents would do for a service."""
        (service,) = self.store.view.named(Service, name)
        nodes = self.store.view.list(Node)
        for slot in range(1, count + 1):
            self.store.put(a_task(service, slot, nodes[slot % len(nodes)]))


def a_line(text: str, stream: LogStream = LogStream.STDOUT) -> LogMessage:
    return LogMessage(
        task_id="t" * 25,
        node_id=a_node(1).id,
        service_id="s" * 25,
        stream=stream,
        timestamp=START,
        data=text.encode(),
    )
