"""The work behind a task's steps: image, network, container. Every method may be called again after a crash.

Raises `Temporary` for what may pass (the runner tries again) and `Fatal` for what will not.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

from swarm.base.errors import (
    AlreadyExists,
    Fatal,
    InvalidArgument,
    NotFound,
    SwarmError,
    Temporary,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.model.dataplane import TaskNetwork
from swarm.model.defaults import PIDS_LIMIT, STOP_GRACE_PERIOD
from swarm.model.objects import Task
from swarm.model.signals import parse_signal
from swarm.model.types import PortConfig, PublishMode, Resources
from swarm.overlay.data_path import DataPath, TaskLink
from swarm.worker.images.image import Image
from swarm.worker.images.store import ImageStore
from swarm.worker.runtime.containers import Containers
from swarm.worker.runtime.spec import ContainerConfig, process_args, process_env
from swarm.worker.runtime.status import ExitStatus
from swarm.worker.task_machine import Outcome

LEAVE_BALANCER_S = 1.0
"""Between leaving the balancers of all hosts and SIGTERM: time for the news to reach them."""


class Controller:
    def __init__(
        self, *, images: ImageStore, containers: Containers, network: DataPath, nameservers: tuple[str, ...]
    ) -> None:
        self._images = images
        self._containers = containers
        self._network = network
        self._nameservers = nameservers

    async def prepare(self, task: Task) -> Outcome:
        """Image, network and created container. Raises: Temporary, Fatal."""
        failpoint("task.prepare.begin")
        image = await self._image(task)
        self._images.retain(image, task.id)
        link = await self._network.attach(
            TaskNetwork(task_id=task.id, attachments=task.attachments, host_ports=_host_ports(task))
        )
        failpoint("task.prepare.attached")
        config = self._config(task, image, link)
        try:
            await self._containers.create(config)
        except AlreadyExists:
            # Made before, and dead; that it had been made was not written down before the power went.
            await self._containers.remove(task.id)
            await self._containers.create(config)
        failpoint("task.prepare.done")
        return Outcome(ports=link.host_ports)

    async def start(self, task: Task) -> Outcome:
        """Raises: Temporary, Fatal."""
        failpoint("task.start.begin")
        await self._containers.start(task.id)
        failpoint("task.start.done")
        return Outcome(pid=self._containers.pid(task.id) or 0)

    async def wait(self, task: Task) -> Outcome:
        status = await self._containers.wait(task.id)
        failpoint("task.wait.done")
        return _outcome(status)

    async def stop(self, task: Task, *, was_running: bool) -> Outcome:
        """Stop the container, if there is one: out of the balancers, then signal, grace, kill."""
        failpoint("task.stop.begin")
        if was_running and _is_balanced(task) and self._containers.is_alive(task.id):
            await asyncio.sleep(LEAVE_BALANCER_S)
        spec = task.spec.container_spec
        grace = STOP_GRACE_PERIOD if spec.stop_grace_period is None else spec.stop_grace_period
        try:
            status = await self._containers.stop(task.id, self._stop_signal(task), grace)
        except NotFound:
            return Outcome()
        failpoint("task.stop.done")
        return Outcome(exit_code=status.code)

    async def remove(self, task: Task) -> None:
        """Take away all that the task left on this host. Raises: Temporary."""
        failpoint("task.remove.begin")
        await self._containers.remove(task.id)
        failpoint("task.remove.container")
        await self._network.detach(task.id)
        self._images.release(task.id)
        failpoint("task.remove.done")

    async def release_network(self, task: Task) -> None:
        """An ended task keeps its container (for its logs) but no address or port, nor descriptors here."""
        failpoint("task.release.begin")
        await self._network.detach(task.id)
        self._containers.let_go(task.id)

    async def _image(self, task: Task) -> Image:
        """The image named in the spec: the local one if there is one, else pulled."""
        name = task.spec.container_spec.image
        try:
            return self._images.get(name)
        except NotFound:
            pass
        try:
            return await self._images.pull(name)
        except (Temporary, Unavailable) as error:
            raise Fatal(f"cannot pull image {name}: {error}") from error
        except SwarmError as error:
            raise Fatal(str(error)) from error

    def _stop_signal(self, task: Task) -> int:
        named = task.spec.container_spec.stop_signal
        if not named and (image := self._images.retained_by(task.id)) is not None:
            named = image.config.stop_signal
        try:
            return parse_signal(named or "SIGTERM")
        except InvalidArgument:
            # Nobody checked what an image says, and a container that cannot be stopped would never go.
            return signal.SIGTERM

    def _config(self, task: Task, image: Image, link: TaskLink) -> ContainerConfig:
        spec = task.spec.container_spec
        hostname = spec.hostname or task.id[:12]
        limits = task.spec.resources.limits if task.spec.resources else Resources()
        return ContainerConfig(
            id=task.id,
            name=task.name,
            lower_dirs=self._images.lower_dirs(image),
            args=process_args(
                command=spec.command, args=spec.args, entrypoint=image.config.entrypoint, cmd=image.config.cmd
            ),
            env=process_env(image=image.config.env, user=spec.env, hostname=hostname),
            cwd=spec.dir or image.config.working_dir or "/",
            user=spec.user or image.config.user,
            hostname=hostname,
            hosts=tuple((a.partition("/")[0], hostname) for at in task.attachments for a in at.addresses),
            nameservers=self._nameservers,
            mounts=spec.mounts,
            image_volumes=image.config.volumes,
            limits=replace(limits, pids=limits.pids or PIDS_LIMIT),
            netns=link.netns,
        )


def read_nameservers(resolv_conf: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The host's name servers, but for those on its loopback, which a container cannot reach."""
    try:
        lines = resolv_conf.read_text().splitlines()
    except OSError:
        return ()
    found = (line.split() for line in lines)
    return tuple(
        words[1]
        for words in found
        if len(words) > 1 and words[0] == "nameserver" and not words[1].startswith(("127.", "::1"))
    )


def _host_ports(task: Task) -> tuple[PortConfig, ...]:
    return tuple(p for p in task.endpoint.ports if p.publish_mode is PublishMode.HOST)


def _is_balanced(task: Task) -> bool:
    return any(p.publish_mode is PublishMode.INGRESS for p in task.endpoint.ports)


def _outcome(status: ExitStatus) -> Outcome:
    error = status.error
    if status.oom_killed:
        error = f"task: non-zero exit ({status.code}): out of memory"
    return Outcome(error=error, exit_code=status.code)
