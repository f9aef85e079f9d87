"""Why a service is not converged: its stored state and `now` in, plain words out. Pure.

Nothing is decided here: each reason is asked of whoever decides (the scheduler's filters, the restart policy,
the dependencies), so the words cannot differ from the deeds.
Invariant: a service that is not as it was asked for has at least one finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from swarm.manager.explain.placement import refusals, why_not_ready
from swarm.manager.orchestrator.dependencies import waits_for
from swarm.manager.orchestrator.dirty import is_dirty
from swarm.manager.orchestrator.global_ import is_wanted
from swarm.manager.orchestrator.jobs import concurrency_and_total, is_finished
from swarm.manager.orchestrator.restart import plan_restart
from swarm.manager.orchestrator.rollout import PAUSED, UNDER_WAY
from swarm.manager.orchestrator.schedule import due_at
from swarm.manager.orchestrator.slots import Slot, is_abandoned, may_still_run, slots_by_node, slots_by_number
from swarm.model.exclusive import SURELY_FENCED_S, is_exclusive
from swarm.model.explanation import Explanation, Finding
from swarm.model.objects import Node, Service, Task
from swarm.model.options import service_options
from swarm.model.task_state import TaskState, is_dead
from swarm.model.types import Availability, NodeState, UpdateState
from swarm.model.view import ClusterView
from swarm.scheduler.cluster import Accounting

NAMED = 3
"""Tasks that a sentence names one by one; the others are counted."""


def explain(view: ClusterView, service: Service, now: datetime) -> Explanation:
    """What runs, what should, and every reason for the difference."""
    tasks = view.tasks_of_service(service.id)
    slots = _slots(view, service)
    running = sum(_runs(view, task) for task in tasks)
    desired = _desired(view, service)
    slot_findings = _Slots(view, service, now)
    about_slots = [finding for slot in slots for finding in slot_findings.of(slot)]
    found = (
        *_of_update(view, service, tasks),
        *_together(about_slots),
        *_of_nodes(view, service, tasks),
        *_of_numbers(view, service, slots, now),
        *_of_autoscale(service),
    )
    is_done = is_finished(view, service) if service.spec.mode.is_job else running >= desired
    holding = [finding for finding in found if finding.kind not in REMARKS]
    if not is_done and not holding:
        found += (Finding(kind="progress", text="nothing holds it up: it is being worked on"),)
    return Explanation(
        service_name=service.spec.name,
        running=running,
        desired=desired,
        is_converged=is_done and not holding,
        findings=found,
    )


def _slots(view: ClusterView, service: Service) -> Sequence[Slot]:
    tasks, mode = view.tasks_of_service(service.id), service.spec.mode

    def is_outdated(task: Task) -> bool:
        return is_dirty(view, service, task)

    if mode.replicated is not None or mode.replicated_job is not None:
        return sorted(slots_by_number(view, tasks, is_outdated).values(), key=lambda slot: slot.key)
    return sorted(slots_by_node(view, tasks, is_outdated).values(), key=lambda slot: slot.key)


REMARKS = frozenset({"autoscale", "schedule", "rolled-back", "drained"})
"""What is worth knowing but keeps nothing from running."""


def _runs(view: ClusterView, task: Task) -> bool:
    is_kept = task.desired_state <= TaskState.RUNNING and task.status.state is TaskState.RUNNING
    return is_kept and not is_abandoned(view, task)


def _desired(view: ClusterView, service: Service) -> int:
    mode = service.spec.mode
    if mode.replicated is not None:
        return mode.replicated.replicas
    if mode.replicated_job is not None:
        return concurrency_and_total(mode.replicated_job)[1]
    return sum(is_wanted(service, node) for node in view.list(Node))


# -- one slot ----------------------------------------------------------------------------------------------


class _Slots:
    """Reasons of single slots, with what all of them need to know."""

    def __init__(self, view: ClusterView, service: Service, now: datetime) -> None:
        self._view = view
        self._service = service
        self._now = now
        self._waits_for = waits_for(view, service)
        self._accounting = Accounting.of(view)

    def of(self, slot: Slot) -> Iterator[Finding]:
        task = slot.keeper or slot.outgoing
        name = _slot_name(self._view, self._service, slot)
        if task is None:
            yield from self._ended(slot, name)
        elif not _runs(self._view, task):
            yield from self._unfinished(slot, task, name)
        elif (node := self._view.get(Node, task.node_id)) and node.status.state is not NodeState.READY:
            text = f"ran on {_host(node)} when that was last heard from; now the node {why_not_ready(node)}"
            yield Finding(kind="node", text=text, tasks=(name,))

    def _unfinished(self, slot: Slot, task: Task, name: str) -> Iterator[Finding]:
        state = task.status.state
        if state <= TaskState.PENDING:
            yield self._placeless(task, name)
        elif state is TaskState.READY and task.desired_state <= TaskState.READY:
            yield self._held_back(slot, task, name)
        elif state < TaskState.RUNNING:
            yield self._on_its_way(task, name)

    def _placeless(self, task: Task, name: str) -> Finding:
        if task.status.state is TaskState.NEW:
            text = f"waits for its addresses and ports: {task.status.err or 'they are being given out'}"
            return Finding(kind="allocation", text=text, tasks=(name,))
        nodes = refusals(self._view, task, self._accounting)
        advice = "make room on a node or change what the service asks for" if nodes else ""
        text = task.status.err or "waits for the scheduler"
        return Finding(kind="placement", text=text, advice=advice, tasks=(name,), nodes=nodes)

    def _held_back(self, slot: Slot, task: Task, name: str) -> Finding:
        """It is prepared, and the orchestrator does not let it start yet."""
        lost = [
            t
            for t in slot.tasks
            if is_exclusive(t) and is_abandoned(self._view, t) and may_still_run(self._view, t)
        ]
        if lost:
            node = self._view.get(Node, lost[0].node_id)
            where = _host(node) if node else "a node that was removed"
            text = (
                f"may still run on {where}, which is lost: the service is exclusive, so it starts when that "
                f"host must have stopped it, {SURELY_FENCED_S:g} s after it was lost"
            )
            return Finding(kind="fence", text=text, tasks=(name,))
        if task.start_after is not None and task.start_after > self._now:
            wait_s = (task.start_after - self._now).total_seconds()
            text = f"failed and is started again in {wait_s:.3g} s: {_last_error(slot, task)}"
            return Finding(kind="restart", text=text, advice=_look_at_logs(self._service), tasks=(name,))
        before = [t for t in slot.tasks if t is not task and may_still_run(self._view, t)]
        if before:
            text = f"is prepared and starts when its predecessor on {self._where(before[0])} has stopped"
            return Finding(kind="predecessor", text=text, tasks=(name,))
        if self._waits_for:
            advice = f"see swarm service explain {self._waits_for.split()[3]}"
            return Finding(kind="dependency", text=f"is {self._waits_for}", advice=advice, tasks=(name,))
        return Finding(kind="progress", text="is prepared and about to start", tasks=(name,))

    def _on_its_way(self, task: Task, name: str) -> Finding:
        node = self._view.get(Node, task.node_id)
        where = self._where(task)
        if node is None or node.status.state is not NodeState.READY:
            state = why_not_ready(node) if node else "was removed"
            return Finding(kind="node", text=f"was given to {where}, which {state}", tasks=(name,))
        if task.status.state is TaskState.STARTING:
            text = f"starts on {where}; its health check has not passed yet"
            if task.spec.container_spec.healthcheck is None:
                text = f"starts on {where}"
            return Finding(kind="starting", text=text, advice=_look_at_logs(self._service), tasks=(name,))
        if task.status.err:
            text = f"cannot be prepared on {where} and is tried again: {task.status.err}"
            return Finding(kind="preparing", text=text, advice="", tasks=(name,))
        return Finding(kind="preparing", text=f"is being prepared on {where}", tasks=(name,))

    def _ended(self, slot: Slot, name: str) -> Iterator[Finding]:
        if not slot.tasks or (self._service.spec.mode.is_job and _is_complete(slot.tasks[-1])):
            return
        if plan_restart(slot.tasks, self._service, self._now) is not None:
            return
        policy = self._service.spec.task_template.restart_policy
        last = slot.tasks[-1]
        end = last.status.err or f"{last.status.state.word}"
        spent = policy is not None and policy.max_attempts and not _is_complete(last)
        why = (
            f"its {policy.max_attempts} attempts are spent"
            if policy and spent
            else "its restart policy says so"
        )
        advice = f"mend the cause, then: swarm service update --force {self._service.spec.name}"
        yield Finding(
            kind="gave-up", text=f"is not started again, {why}: {end}", advice=advice, tasks=(name,)
        )

    def _where(self, task: Task) -> str:
        node = self._view.get(Node, task.node_id) if task.node_id else None
        return _host(node) if node else "no node"


def _is_complete(task: Task) -> bool:
    return task.status.state is TaskState.COMPLETE


def _slot_name(view: ClusterView, service: Service, slot: Slot) -> str:
    if slot.number:
        return f"{service.spec.name}.{slot.number}"
    node = view.get(Node, slot.node_id)
    return f"{service.spec.name} on {_host(node) if node else slot.node_id}"


def _host(node: Node) -> str:
    return node.description.hostname or node.id


def _last_error(slot: Slot, task: Task) -> str:
    ended = [t for t in slot.tasks if t is not task and is_dead(t.status.state)]
    return (ended[-1].status.err or ended[-1].status.state.word) if ended else "it ended"


def _look_at_logs(service: Service) -> str:
    return f"see swarm service logs {service.spec.name}"


def _together(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One for all tasks that the same reason holds back."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        key = (finding.kind, finding.text, tuple(finding.nodes.items()))
        groups.setdefault(key, []).append(finding)
    for group in groups.values():
        first, names = group[0], [name for finding in group for name in finding.tasks]
        told = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} others" if len(names) > NAMED else "")
        text = f"{told}: {first.text}"
        yield Finding(kind=first.kind, text=text, advice=first.advice, tasks=tuple(names), nodes=first.nodes)


# -- the service -------------------------------------------------------------------------------------------


def _of_update(view: ClusterView, service: Service, tasks: Sequence[Task]) -> Iterator[Finding]:
    status, name = service.update_status, service.spec.name
    if status is None:
        return
    if status.state in PAUSED:
        advice = f"swarm service update --resume {name}, or swarm service rollback {name}"
        if status.state is UpdateState.ROLLBACK_PAUSED:
            advice = f"mend the cause, then: swarm service update --resume {name}"
        yield Finding(kind="update", text=status.message or "the update is paused", advice=advice)
    elif status.state in UNDER_WAY:
        live = [t for t in tasks if t.desired_state <= TaskState.RUNNING and not is_dead(t.status.state)]
        behind = sum(is_dirty(view, service, task) for task in live)
        if behind:
            message = status.message or "an update is under way"
            text = f"{message}: {behind} of {len(live)} tasks are still to be replaced"
            yield Finding(kind="update", text=text)
    elif status.state is UpdateState.ROLLBACK_COMPLETED:
        yield Finding(kind="rolled-back", text=f"the last update was rolled back: {status.message}")


def _of_nodes(view: ClusterView, service: Service, tasks: Sequence[Task]) -> Iterator[Finding]:
    """Nodes that a global service leaves out, and tasks that have to leave theirs."""
    if service.spec.mode.global_ is not None or service.spec.mode.global_job is not None:
        for node in view.list(Node):
            if node.spec.availability is Availability.DRAIN:
                yield Finding(kind="drained", text=f"{_host(node)} is drained and gets no task")
    leaving: Mapping[str, list[str]] = {}
    for task in tasks:
        node_of = view.get(Node, task.node_id) if task.node_id else None
        drained = node_of is not None and node_of.spec.availability is Availability.DRAIN
        if node_of and drained and task.desired_state <= TaskState.RUNNING and not is_dead(task.status.state):
            leaving = {**leaving, _host(node_of): [*leaving.get(_host(node_of), []), task.name]}
    for host, names in leaving.items():
        number = "1 task is" if len(names) == 1 else f"{len(names)} tasks are"
        text = f"{number} still to leave {host}, which is drained"
        yield Finding(kind="drain", text=text, tasks=tuple(names))


def _of_numbers(
    view: ClusterView, service: Service, slots: Sequence[Slot], now: datetime
) -> Iterator[Finding]:
    """Of what the service asks for by itself: no replicas, no node, no time yet."""
    schedule = service_options(service.spec.labels).schedule
    if schedule is not None and (due := due_at(service, schedule)) is not None:
        when = due.isoformat(timespec="seconds")
        yield Finding(
            kind="schedule", text=f"it runs {'next' if due > now else 'now, since it was due'} at {when}"
        )
    if service.spec.mode.global_ is not None and not any(is_wanted(service, n) for n in view.list(Node)):
        yield Finding(
            kind="placement",
            text="no node is wanted: all are drained, down, or do not meet its constraints and platform",
            advice=f"see swarm node ls and swarm service inspect --pretty {service.spec.name}",
        )


def _of_autoscale(service: Service) -> Iterator[Finding]:
    scale, mode = service_options(service.spec.labels).autoscale, service.spec.mode.replicated
    if scale is None or mode is None:
        return
    said = f"; last decision: {service.scaling.message}" if service.scaling else ""
    at_bound = {scale.min: ", its minimum", scale.max: ", its maximum"}.get(mode.replicas, "")
    text = f"it scales by itself and is at {mode.replicas} replicas{at_bound}{said}"
    yield Finding(kind="autoscale", text=text)
