"""The work behind a task's steps: image, network, container. Every method may be called again after a crash.

Raises `Temporary` for what may pass (the runner tries again) and `Fatal` for what will not.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, replace

from swarm.base.aio import first_of
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
from swarm.model.defaults import STOP_GRACE_PERIOD
from swarm.model.networks import BRIDGE, HOST, NONE
from swarm.model.objects import Task
from swarm.model.signals import parse_signal
from swarm.model.types import PortConfig, PublishMode
from swarm.overlay.data_path import DataPath, TaskLink
from swarm.worker.fence import FENCED, Fence
from swarm.worker.health import Health, HealthPlan, Verdict, health_plan
from swarm.worker.images.image import Image
from swarm.worker.images.login import registry_login
from swarm.worker.images.store import ImageStore
from swarm.worker.logs import last_words
from swarm.worker.payloads import Payloads
from swarm.worker.prober import Prober
from swarm.worker.runtime.config import ContainerConfig
from swarm.worker.runtime.containers import Containers
from swarm.worker.runtime.status import ExitStatus
from swarm.worker.task_config import (
    Base,
    NodeFacts,
    container_config,
    expanded_spec,
    resolvers,
    template_context,
)
from swarm.worker.task_machine import Outcome

UNHEALTHY = "task: unhealthy container"
LEAVE_BALANCER_S = 1.0
"""Between leaving the balancers of all hosts and SIGTERM: time for the news to reach them."""
NEWS_TIMEOUT_S = 10.0
"""How long an unhealthy task goes on while no manager takes it out of the balancers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParts:
    images: ImageStore
    containers: Containers
    network: DataPath
    node: NodeFacts
    fence: Fence
    prober: Prober
    payloads: Payloads


class Controller:
    def __init__(self, parts: ControllerParts) -> None:
        self._images = parts.images
        self._containers = parts.containers
        self._network = parts.network
        self._node = parts.node
        self._fence = parts.fence
        self._prober = parts.prober
        self._payloads = parts.payloads

    async def prepare(self, task: Task) -> Outcome:
        """Image, network and created container. Raises: Temporary, Fatal."""
        failpoint("task.prepare.begin")
        await self._fence.check(task)
        image = await self._image(task)
        self._payloads.check(task)  # before anything is made: it may not be there
        self._images.retain(image, task.id)
        is_host_network = on_network(task, HOST)
        link = None if is_host_network else await self._attach(task)
        failpoint("task.prepare.attached")
        base = Base(
            image=image.config,
            lower_dirs=self._images.lower_dirs(image),
            netns=link.netns if link else None,
            is_host_network=is_host_network,
            resolver=link.resolver if link else "",
        )
        config = await self._with_payloads(task, container_config(task, base, self._node))
        try:
            await self._containers.create(config)
        except AlreadyExists:
            # Made before, and dead; that it had been made was not written down before the power went.
            await self._containers.remove(task.id)
            await self._containers.create(config)
        failpoint("task.prepare.done")
        return Outcome(ports=link.host_ports if link else _host_ports(task))

    async def _attach(self, task: Task) -> TaskLink:
        return await self._network.attach(task_network(task, resolvers(task, self._node)))

    async def _with_payloads(self, task: Task, config: ContainerConfig) -> ContainerConfig:
        """Its secrets and configs are added last, where nothing else looks at them."""
        spec = expanded_spec(task, self._node)
        found = await self._payloads.delivery(spec, template_context(task, self._node))
        return replace(config, files=found.files, env=(*config.env, *found.env))

    async def start(self, task: Task) -> Outcome:
        """Until the container runs and, if it is probed, is healthy. Raises: Temporary, Fatal."""
        failpoint("task.start.begin")
        await self._fence.check(task)
        await self._containers.start(task.id)
        failpoint("task.start.done")
        pid = self._containers.pid(task.id) or 0
        plan = self._health_plan(task)
        if plan is None:
            return Outcome(pid=pid)
        outcome = await self._probed(task, plan, until=Health.HEALTHY)
        return replace(outcome, pid=pid)

    async def wait(self, task: Task) -> Outcome:
        """Until the container has ended, or is unhealthy."""
        plan = self._health_plan(task)
        if plan is None:
            return self._ended(task, await self._containers.wait(task.id))
        return await self._probed(task, plan, until=Health.UNHEALTHY)

    async def _probed(self, task: Task, plan: HealthPlan, *, until: Health) -> Outcome:
        found: ExitStatus | Verdict = await first_of(
            self._containers.wait(task.id), self._prober.until(until, task.id, plan)
        )
        if isinstance(found, ExitStatus):
            return self._ended(task, found)
        if found.health is Health.UNHEALTHY:
            return Outcome(is_unhealthy=True, error=": ".join(filter(None, (UNHEALTHY, found.output))))
        return Outcome()

    def _ended(self, task: Task, status: ExitStatus) -> Outcome:
        failpoint("task.wait.done")
        if self._fence.has_struck(task):
            return Outcome(error=FENCED, exit_code=status.code)
        error = status.error
        if not error and status.code != 0:
            why = "out of memory" if status.oom_killed else self._last_words(task)
            error = ": ".join(filter(None, (f"task: non-zero exit ({status.code})", why)))
        return Outcome(error=error, exit_code=status.code)

    def _last_words(self, task: Task) -> str:
        """What the program said last: mostly why it ended. A terminal has no stream for errors."""
        log = self._containers.log_path(task.id)
        stream = "stdout" if task.spec.container_spec.tty else "stderr"
        return last_words(log, stream) or last_words(log.with_name(f"{log.name}.1"), stream)

    def _health_plan(self, task: Task) -> HealthPlan | None:
        image = self._images.image_of(task.id)
        return health_plan(task.spec.container_spec.healthcheck, image.config.healthcheck if image else None)

    async def stop(self, task: Task, *, was_running: bool) -> Outcome:
        """Stop the container, if there is one: out of the balancers, then signal, grace, kill."""
        failpoint("task.stop.begin")
        if was_running and _is_balanced(task) and self._containers.is_alive(task.id):
            if task.status.is_unhealthy:
                await self._out_of_balancer(task)
            await asyncio.sleep(LEAVE_BALANCER_S)
        spec = task.spec.container_spec
        grace = STOP_GRACE_PERIOD if spec.stop_grace_period is None else spec.stop_grace_period
        try:
            status = await self._containers.stop(task.id, self._stop_signal(task), grace)
        except NotFound:
            return Outcome()
        failpoint("task.stop.done")
        return Outcome(exit_code=status.code)

    async def _out_of_balancer(self, task: Task) -> None:
        """It was this host's own decision: managers hear of it first, and then all hosts."""
        addresses = {a.partition("/")[0] for at in task.attachments for a in at.addresses}
        with suppress(TimeoutError):
            async with asyncio.timeout(NEWS_TIMEOUT_S):
                await self._network.without_backends(addresses)

    async def remove(self, task: Task) -> None:
        """Take away all that the task left on this host. Raises: Temporary."""
        failpoint("task.remove.begin")
        await self._containers.remove(task.id)
        failpoint("task.remove.container")
        await self._network.detach(task.id)
        self._images.release(task.id)
        failpoint("task.remove.done")

    async def release(self, task: Task) -> None:
        """An ended task keeps its container (for its logs): no secret, address or port, nor descriptors."""
        failpoint("task.release.begin")
        self._prober.forget(task.id)
        self._fence.disarm(task.id)
        await self._containers.take_back(task.id)
        await self._network.detach(task.id)
        self._containers.let_go(task.id)

    async def _image(self, task: Task) -> Image:
        """The image named in the spec: the local one if there is one, else pulled."""
        name = task.spec.container_spec.image
        try:
            return self._images.get(name)
        except NotFound:
            pass
        options = task.spec.container_spec.pull_options
        if options is not None and not options.registry_auth:
            # This swarmd has been restarted, and a login is never written down here.
            raise Temporary(f"waiting for a manager to send the registry login for {name} again")
        try:
            return await self._images.pull(name, registry_login(options.registry_auth) if options else None)
        except (Temporary, Unavailable) as error:
            raise Fatal(f"cannot pull image {name}: {error}") from error
        except SwarmError as error:
            raise Fatal(str(error)) from error

    def _stop_signal(self, task: Task) -> int:
        named = task.spec.container_spec.stop_signal
        image = self._images.image_of(task.id)
        if not named and image is not None:
            named = image.config.stop_signal
        try:
            return parse_signal(named or "SIGTERM")
        except InvalidArgument:
            # Nobody checked what an image says, and a container that cannot be stopped would never go.
            return signal.SIGTERM


def on_network(task: Task, network_id: str) -> bool:
    return any(attachment.network_id == network_id for attachment in task.attachments)


def task_network(task: Task, nameservers: tuple[str, ...]) -> TaskNetwork:
    """What the task needs of its host's networks.

    `bridge` is there unless all others are internal, or one of them has a way out of its own (macvlan).
    """
    given = tuple(a for a in task.attachments if a.addresses or a.config_from)
    is_internal = bool(given) and all(attachment.internal for attachment in given)
    has_own_way = any(a.config_from and not a.internal for a in given)
    return TaskNetwork(
        task_id=task.id,
        attachments=given,
        host_ports=_host_ports(task),
        slot=f"{task.service_id}.{task.slot or task.node_id}" if task.service_id else "",
        is_internal=on_network(task, NONE) or ((is_internal or has_own_way) and not on_network(task, BRIDGE)),
        names_on=_named_networks(task),
        nameservers=nameservers,
    )


def _host_ports(task: Task) -> tuple[PortConfig, ...]:
    return tuple(p for p in task.endpoint.ports if p.publish_mode is PublishMode.HOST)


def _named_networks(task: Task) -> tuple[str, ...]:
    """Overlays that the service asks for; on the ingress nobody has a name."""
    asked = {network.target for network in task.spec.networks}
    return tuple(a.network_id for a in task.attachments if a.addresses and a.network_id in asked)


def _is_balanced(task: Task) -> bool:
    is_published = any(p.publish_mode is PublishMode.INGRESS for p in task.endpoint.ports)
    return is_published or bool(_named_networks(task))
