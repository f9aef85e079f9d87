"""This node's containers as the API shows them: a thin adapter, no decisions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from swarm.api import backend as api
from swarm.api.task_container import container_of
from swarm.base.errors import Fatal, NotFound
from swarm.model.objects import Task
from swarm.model.specs import ContainerSpec
from swarm.model.task_state import TaskState
from swarm.model.types import Platform
from swarm.overlay.node_networks import NodeNetworks
from swarm.worker.images.image import Image
from swarm.worker.images.registry import RegistryAuth
from swarm.worker.images.store import ImageStore
from swarm.worker.log_publisher import LogPublisher
from swarm.worker.runtime.config import process_args
from swarm.worker.runtime.containers import Containers
from swarm.worker.tasks import Tasks


class EngineImages:
    """The image store with the API's login and platform types."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self.list = images.list
        self.get = images.get
        self.load = images.load
        self.remove = images.remove

    async def pull(
        self, reference: str, auth: api.RegistryAuth | None, progress: Callable[[api.PullProgress], None]
    ) -> Image:
        return await self._images.pull(reference, _login(auth), progress)

    async def resolve(self, reference: str, auth: api.RegistryAuth | None) -> Resolved:
        found = await self._images.resolve(reference, _login(auth))
        platforms = tuple(Platform(architecture=p.architecture, os=p.os) for p in found.platforms)
        return Resolved(found.digest, found.media_type, found.size, platforms)


@dataclass(frozen=True, slots=True)
class Resolved:
    digest: str
    media_type: str
    size: int
    platforms: tuple[Platform, ...]


class EngineContainers:
    """The containers of this node's tasks."""

    def __init__(
        self, tasks: Callable[[], Tasks | None], logs: Callable[[], LogPublisher | None], parts: LocalParts
    ) -> None:
        self._tasks = tasks
        self._logs = logs
        self._parts = parts

    def list(self) -> Sequence[api.Container]:
        tasks = self._tasks()
        made = [t for t in (tasks.list() if tasks else ()) if t.status.state >= TaskState.READY]
        return sorted((self._container(t) for t in made), key=lambda c: c.created_at, reverse=True)

    def logs(
        self, container_id: str, options: api.LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[api.LogMessage]]:
        return self._read(container_id, options)

    @asynccontextmanager
    async def _read(
        self, container_id: str, options: api.LogOptions
    ) -> AsyncIterator[AsyncIterator[api.LogMessage]]:
        tasks, logs = self._tasks(), self._logs()
        task = tasks.get(container_id) if tasks else None
        if task is None or logs is None:
            raise NotFound("container", container_id)
        async with aclosing(_messages(task, logs, options)) as messages:
            yield messages

    def _container(self, task: Task) -> api.Container:
        spec = task.spec.container_spec
        status = task.status
        pid = self._parts.containers.pid(task.id) if status.state <= TaskState.RUNNING else None
        try:
            image = self._parts.images.get(spec.image)
        except NotFound:
            image = None
        return replace(
            container_of(task),
            image_id=image.id if image else "",
            command=_command(spec, image),
            pid=pid or 0,
            log_path=str(self._parts.containers.log_path(task.id)),
        )


def _command(spec: ContainerSpec, image: Image | None) -> tuple[str, ...]:
    """What the container runs, as far as it is known here: the image may be gone."""
    if image is None:
        return (*spec.command, *spec.args)
    config = image.config
    try:
        return process_args(
            command=spec.command, args=spec.args, entrypoint=config.entrypoint, cmd=config.cmd
        )
    except Fatal:
        return ()


@dataclass(frozen=True, slots=True)
class LocalParts:
    """What every node has, in a cluster or not."""

    images: ImageStore
    containers: Containers
    networks: NodeNetworks


@dataclass(frozen=True, slots=True)
class LocalEngine:
    state_dir: str
    runtime: str
    labels: tuple[str, ...]
    insecure_registries: tuple[str, ...]
    images: EngineImages
    containers: EngineContainers
    networks: NodeNetworks


async def _messages(
    task: Task, logs: LogPublisher, options: api.LogOptions
) -> AsyncGenerator[api.LogMessage, None]:
    lines = logs.read(task.id, tail=options.tail, since=options.since, follow=options.follow)
    async for line in lines:
        if line.stream in options.streams:
            yield api.LogMessage(
                task_id=task.id,
                node_id=task.node_id,
                service_id=task.service_id,
                stream=api.LogStream(line.stream),
                timestamp=line.time,
                data=line.data,
            )


def _login(auth: api.RegistryAuth | None) -> RegistryAuth | None:
    return RegistryAuth(username=auth.username, password=auth.password) if auth else None
