"""`/tasks`. Clients poll the list without pause, so each task's JSON is kept until the task changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from aiohttp import web

from swarm.api.backend import LogSelector
from swarm.api.call import Call, Route, raw_answer
from swarm.api.logs import read_options, stream_logs
from swarm.api.present import task_json
from swarm.api.selection import TASK_FILTERS, select_tasks
from swarm.base.errors import NotManager
from swarm.manager.orchestrator.dependencies import waits_for
from swarm.model.objects import Network, Service, Task
from swarm.model.task_state import TaskState
from swarm.model.view import ClusterView, find

_KEPT_LIMIT = 5000


class RenderedTasks:
    """JSON texts by task id, each valid for exactly the object (and networks) that it was made from."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Task, tuple[Network, ...], bytes]] = {}

    def render(self, task: Task, networks: Mapping[str, Network]) -> bytes:
        used = tuple(networks[a.network_id] for a in task.attachments if a.network_id in networks)
        kept = self._kept.get(task.id)
        if kept is not None and kept[0] is task and _same(kept[1], used):
            return kept[2]
        text = json.dumps(task_json(task, networks), separators=(",", ":"), ensure_ascii=False).encode()
        if len(self._kept) >= _KEPT_LIMIT:
            self._kept.clear()
        self._kept[task.id] = (task, used, text)
        return text


def _same(left: tuple[Network, ...], right: tuple[Network, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


_rendered = RenderedTasks()


def _networks(view: ClusterView) -> dict[str, Network]:
    return {network.id: network for network in view.list(Network)}


def _shown(view: ClusterView, task: Task) -> Task:
    """With the reason why it is held at READY, which is another service's and in no task."""
    if task.desired_state is not TaskState.READY or task.status.err or task.start_after is not None:
        return task
    service = view.get(Service, task.service_id)
    reason = waits_for(view, service) if service else ""
    return replace(task, status=replace(task.status, err=reason)) if reason else task


async def list_tasks(call: Call) -> web.Response:
    view = call.control().view
    networks = _networks(view)
    tasks = [_shown(view, task) for task in select_tasks(view, call.filters(TASK_FILTERS))]
    return raw_answer(b"[" + b",".join(_rendered.render(task, networks) for task in tasks) + b"]\n")


async def inspect(call: Call) -> web.Response:
    view = call.control().view
    task = _shown(view, find(view, Task, call.params["id"]))
    return raw_answer(_rendered.render(task, _networks(view)) + b"\n")


async def logs(call: Call) -> web.StreamResponse:
    task = find(call.control().view, Task, call.params["id"])
    options = read_options(call)
    if call.backend.logs is None:
        raise NotManager(in_cluster=True)
    async with call.backend.logs.read(LogSelector(task_ids=(task.id,)), options) as messages:
        return await stream_logs(call, messages, is_terminal=task.spec.container_spec.tty)


ROUTES = (
    Route("GET", "/tasks", list_tasks),
    Route("GET", "/tasks/{id}", inspect),
    Route("GET", "/tasks/{id}/logs", logs),
)
