"""A task's container as the task's record tells of it: what a manager knows of other nodes' ones. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from swarm.api.backend import Container, ContainerMount, ContainerState
from swarm.base.errors import SwarmError
from swarm.model.defaults import STOP_GRACE_PERIOD
from swarm.model.objects import Task
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView, find

LABEL = "com.docker.swarm"


def find_task(view: ClusterView, reference: str) -> Task | None:
    """The task whose container has this id, this unique beginning of an id, or this name."""
    name = reference.removeprefix("/")
    named = view.get(Task, name.rpartition(".")[2])
    if named is not None and name in (named.id, named.name):
        return named
    try:
        return find(view, Task, name)
    except SwarmError:
        return None


def container_of(task: Task) -> Container:
    """What the image and the host add (default command, paths) is not known here and left out."""
    spec, status = task.spec.container_spec, task.status
    return Container(
        id=task.id,
        name=task.name,
        image=spec.image,
        command=(*spec.command, *spec.args),
        created_at=task.meta.created_at or status.timestamp or datetime.fromtimestamp(0, UTC),
        state=_state(status.state),
        started_at=status.timestamp if status.state is TaskState.RUNNING else None,
        finished_at=status.timestamp if status.state > TaskState.RUNNING else None,
        pid=status.container.pid if status.container else 0,
        exit_code=status.container.exit_code if status.container else 0,
        error=status.err,
        labels={**spec.labels, **labels_of(task)},
        env=spec.env,
        hostname=spec.hostname or task.id[:12],
        user=spec.user,
        working_dir=spec.dir,
        ports=status.ports,
        mounts=tuple(
            ContainerMount(type=m.type, source=m.source, destination=m.target, read_only=m.read_only)
            for m in spec.mounts
        ),
        networks={a.network_id: a.addresses[0] for a in task.attachments if a.addresses},
        stop_grace_period=spec.stop_grace_period or STOP_GRACE_PERIOD,
    )


def labels_of(task: Task) -> dict[str, str]:
    """The labels by which tools recognise a task's container."""
    return {
        f"{LABEL}.node.id": task.node_id,
        f"{LABEL}.service.id": task.service_id,
        f"{LABEL}.service.name": task.service_name,
        f"{LABEL}.task": "",
        f"{LABEL}.task.id": task.id,
        f"{LABEL}.task.name": task.name,
    }


def _state(state: TaskState) -> ContainerState:
    if state > TaskState.RUNNING:
        return ContainerState.EXITED
    return ContainerState.RUNNING if state is TaskState.RUNNING else ContainerState.CREATED
