"""Replicated services: as many slots as the service asks for, each with a task.

Invariant: after the plan is applied at most `replicas` slots have a task with desired state <= RUNNING.
Source: SwarmKit manager/orchestrator/replicated/services.go (reconcile).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, islice

from swarm.base.ids import NodeID
from swarm.manager.orchestrator.dirty import outdated_by
from swarm.manager.orchestrator.replace import Work, is_spent, plan_slot
from swarm.manager.orchestrator.rollout import plan_rollout
from swarm.manager.orchestrator.slots import Slot, lower, slots_by_number
from swarm.model.plan import Plan, join
from swarm.model.specs import ReplicatedMode
from swarm.model.task_state import TaskState


def plan_replicated(work: Work, mode: ReplicatedMode) -> Plan:
    """Create, replace, start, shut down or remove tasks until `mode.replicas` slots stand."""
    is_outdated = outdated_by(work.view, work.service)
    slots = slots_by_number(work.view, work.view.tasks_of_service(work.service.id), is_outdated)
    standing = [slot for slot in slots.values() if slot.tasks]
    surplus = len(standing) - mode.replicas
    removed = _removal_order(work, standing)[: max(surplus, 0)]
    removed_numbers = {slot.number for slot in removed}
    plan = Plan.of(op for slot in removed for op in lower(slot.tasks, TaskState.REMOVE))
    kept = [slot for slot in standing if slot.number not in removed_numbers]
    rollout = plan_rollout(work.view, work.service, kept, is_outdated, work.now)
    if rollout.is_turned:
        return rollout.plan
    work = replace(work, rollout=rollout)
    fresh = islice(_free_slots(slots), max(-surplus, 0))
    steps = [plan_slot(work, slot) for slot in (*sorted(kept, key=lambda slot: slot.number), *fresh)]
    return join([rollout.plan, plan, *steps])


def _free_slots(slots: dict[int, Slot]) -> Iterator[Slot]:
    """Lowest number first. One that was scaled away is free, although its last task may still be stopping."""
    for number in count(1):
        slot = slots.get(number)
        if slot is None or not slot.tasks:
            yield slot or Slot(number=number)


def _removal_order(work: Work, slots: Iterable[Slot]) -> list[Slot]:
    """First what runs nowhere, then from the nodes with most copies; there what does not run yet, then the
    highest number."""
    idle: list[Slot] = []
    by_node: dict[NodeID, list[Slot]] = {}
    for slot in slots:
        if slot.holder is None or not slot.holder.node_id:
            idle.append(slot)
        else:
            by_node.setdefault(slot.holder.node_id, []).append(slot)
    ranked: list[tuple[int, bool, int, Slot]] = []
    for placed in by_node.values():
        placed.sort(key=lambda slot: (not _is_running(slot), slot.number))
        ranked += [(copy, not _is_running(slot), slot.number, slot) for copy, slot in enumerate(placed)]
    ranked.sort(key=lambda entry: entry[:3], reverse=True)
    idle.sort(key=lambda slot: (is_spent(work, slot), slot.holder is None, slot.number), reverse=True)
    return [*idle, *(slot for *_, slot in ranked)]


def _is_running(slot: Slot) -> bool:
    return slot.holder is not None and slot.holder.status.state is TaskState.RUNNING
