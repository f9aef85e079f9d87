"""What must hold of a cluster whatever happens to it, as far as an outsider can see it.

In: what the API answers (tasks, services, nodes) and which containers each host has. Out: broken promises,
one sentence each. The numbers are those of the design: I1 identity, I2 states only rise, I3 a task stays on
its node, I4 `remove` is only desired, I5 faults over, all is as asked, I8 one container a task, I9 one owner
an address, I10 nothing is left. (I6 is `linearizable`, I12 follows from it: a refused write is never read.)
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.model.task_state import TaskState

Json = Mapping[str, Any]
HISTORY_LIMIT = 5
"""Dead tasks that a slot keeps."""


@dataclass(frozen=True, slots=True)
class Seen:
    state: TaskState
    desired: TaskState
    node: str


class Auditor:
    """Follows tasks through answers, each asked for after the one before had come."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def look(self, tasks: Iterable[Json]) -> list[str]:
        broken = []
        for task in tasks:
            broken += self._look_at(task)
        return broken

    def _look_at(self, task: Json) -> list[str]:
        now = Seen(
            TaskState.from_word(task["Status"]["State"]),
            TaskState.from_word(task["DesiredState"]),
            task.get("NodeID", ""),
        )
        before = self._seen.get(task["ID"], now)
        self._seen[task["ID"]] = now
        name = f"task {task['ID']}"
        broken = []
        if now.state < before.state:
            broken.append(f"I2: {name} went back from {before.state.word} to {now.state.word}")
        if now.desired < before.desired:
            broken.append(f"I2: {name} is desired {now.desired.word} after {before.desired.word}")
        if before.node and now.node != before.node:
            broken.append(f"I3: {name} moved from node {before.node} to {now.node or 'none'}")
        if TaskState.ASSIGNED <= now.state <= TaskState.RUNNING and not now.node:
            broken.append(f"I3: {name} is {now.state.word} on no node")
        if now.state is TaskState.REMOVE:
            broken.append(f"I4: {name} has the state remove, which may only be desired")
        return broken


def check_identity(tasks: Sequence[Json], services: Iterable[Json]) -> list[str]:
    """I1, of a cluster at rest."""
    known = {service["ID"] for service in services}
    twice = [i for i, count in Counter(task["ID"] for task in tasks).items() if count > 1]
    return [f"I1: two tasks have the id {i}" for i in twice] + [
        f"I1: task {task['ID']} is of service {task['ServiceID']}, which does not exist"
        for task in tasks
        if task["ServiceID"] not in known
    ]


def check_containers(by_host: Mapping[str, Sequence[str]]) -> list[str]:
    """I8: `by_host` has the task of every container that runs, as often as it runs."""
    places: dict[str, list[str]] = defaultdict(list)
    for host, task_ids in by_host.items():
        for task_id in task_ids:
            places[task_id].append(host)
    return [
        f"I8: task {task_id} has {len(hosts)} containers, on {', '.join(hosts)}"
        for task_id, hosts in sorted(places.items())
        if len(hosts) > 1
    ]


def check_addresses(tasks: Iterable[Json]) -> list[str]:
    """I9, of tasks that are alive."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for task in tasks:
        if TaskState.from_word(task["Status"]["State"]) > TaskState.RUNNING:
            continue
        for attachment in task.get("NetworksAttachments") or ():
            for address in attachment.get("Addresses") or ():
                owners[attachment["Network"]["ID"], address].append(task["ID"])
    return [
        f"I9: tasks {', '.join(ids)} share the address {address}"
        for (_, address), ids in sorted(owners.items())
        if len(ids) > 1
    ]


def check_converged(services: Iterable[Json], tasks: Iterable[Json]) -> list[str]:
    """I5: every service has exactly the tasks that it asks for, and no slot keeps too many dead ones."""
    of_service: dict[str, list[Json]] = defaultdict(list)
    for task in tasks:
        of_service[task["ServiceID"]].append(task)
    broken = []
    for service in services:
        wanted = service["Spec"]["Mode"]["Replicated"]["Replicas"]
        found = of_service[service["ID"]]
        meant = [t for t in found if t["DesiredState"] in ("ready", "running")]
        alive = [t for t in found if t["Status"]["State"] == "running"]
        if not len(meant) == len(alive) == wanted:
            broken.append(
                f"I5: service {service['Spec']['Name']} asks for {wanted} tasks, {len(meant)} are meant"
                f" to run and {len(alive)} do"
            )
        dead = Counter(
            t.get("Slot", 0)
            for t in found
            if TaskState.from_word(t["Status"]["State"]) > TaskState.RUNNING
            and t["DesiredState"] not in ("ready", "running")
        )
        broken += [
            f"I5: slot {slot} of service {service['Spec']['Name']} keeps {count} dead tasks"
            for slot, count in dead.items()
            if count > HISTORY_LIMIT
        ]
    return broken


def check_no_traces(by_host: Mapping[str, Sequence[str]]) -> list[str]:
    """I10, when every service is gone: what hosts still have."""
    return [f"I10: {host} keeps {', '.join(found)}" for host, found in by_host.items() if found]


def check_epochs(followed: Sequence[int]) -> list[str]:
    """An agent that has followed a leader follows none from before it."""
    return [
        f"an agent followed epoch {later} after {earlier}"
        for earlier, later in itertools.pairwise(followed)
        if later < earlier
    ]


def check_fenced(began: Iterable[int], writes: Iterable[tuple[int, int]]) -> list[str]:
    """Nothing that an epoch wrote is later than the beginning of the next one.

    `began` are the epochs, each the revision of its first write; `writes` are (epoch, revision).
    """
    epochs = sorted(began)
    ends = dict(itertools.pairwise(epochs))
    return [
        f"epoch {epoch} wrote at {revision}, after {ends[epoch]} had begun"
        for epoch, revision in writes
        if epoch in ends and revision > ends[epoch]
    ]
