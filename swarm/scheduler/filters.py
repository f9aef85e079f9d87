"""Which nodes may take a task, and why the others may not.

What a task asks for and one node's `NodeInfo` in; the first filter that says no, or None, out.
Invariant: `explain` counts each node once, under the filter that refused it first, the most frequent first.
Source: SwarmKit manager/scheduler/filter.go, pipeline.go; the wording is Docker's, people search for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from swarm.base.ids import NodeID
from swarm.model.constraint import satisfies
from swarm.model.generic_resources import claim, wanted_numbers
from swarm.model.objects import Task
from swarm.model.options import Strategy, service_options
from swarm.model.platform import runs_on
from swarm.model.specs import TaskSpec
from swarm.model.types import Availability, NodeState, Placement
from swarm.scheduler.cluster import HostPort, NodeInfo, Release, host_ports_of, release_of, reservations_of

NO_PLACEMENT = Placement()


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What every task of one group asks of its node."""

    release: Release
    nano_cpus: int
    memory_bytes: int
    generic: Mapping[str, int]
    host_ports: frozenset[HostPort]
    placement: Placement
    strategy: Strategy
    replaced: Mapping[NodeID, int] = field(default_factory=dict)
    """Where tasks of the same slot are that this one is to replace: they keep no place from it."""

    @classmethod
    def of(cls, task: Task, replaced: Mapping[NodeID, int] | None = None) -> Requirements:
        reserved = reservations_of(task)
        return cls(
            release=release_of(task),
            nano_cpus=reserved.nano_cpus,
            memory_bytes=reserved.memory_bytes,
            generic=wanted_numbers(reserved.generic_resources),
            host_ports=host_ports_of(task),
            placement=placement_of(task.spec),
            strategy=service_options(task.service_labels).strategy,
            replaced=replaced or {},
        )

    def replaced_on(self, info: NodeInfo) -> int:
        return self.replaced.get(info.node.id, 0) if self.replaced and info.node else 0


def placement_of(spec: TaskSpec) -> Placement:
    return spec.placement or NO_PLACEMENT


def is_ready(_: Requirements, info: NodeInfo) -> bool:
    node = info.node
    return (
        node is not None
        and node.status.state is NodeState.READY
        and node.spec.availability is Availability.ACTIVE
    )


def has_resources(wanted: Requirements, info: NodeInfo) -> bool:
    if not wanted.nano_cpus and not wanted.memory_bytes and not wanted.generic:
        return True
    if info.node is None:
        return False
    total = info.node.description.resources
    return (
        wanted.nano_cpus <= total.nano_cpus - info.reserved_nano_cpus
        and wanted.memory_bytes <= total.memory_bytes - info.reserved_memory_bytes
        and (not wanted.generic or claim(wanted.generic, total.generic_resources, info.claimed) is not None)
    )


def meets_constraints(wanted: Requirements, info: NodeInfo) -> bool:
    return info.node is not None and satisfies(wanted.placement.constraints, info.node)


def has_platform(wanted: Requirements, info: NodeInfo) -> bool:
    return info.node is not None and runs_on(wanted.placement.platforms, info.node.description.platform)


def has_ports(wanted: Requirements, info: NodeInfo) -> bool:
    return all(info.host_ports[port] <= wanted.replaced_on(info) for port in wanted.host_ports)


def is_below_max_replicas(wanted: Requirements, info: NodeInfo) -> bool:
    limit = wanted.placement.max_replicas
    return not limit or info.active_by_service[wanted.release[0]] - wanted.replaced_on(info) < limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    passes: Callable[[Requirements, NodeInfo], bool]
    reason: str
    """`{nodes}` stands for how many nodes it refused."""


PIPELINE = (
    Filter(passes=is_ready, reason="{nodes} not available for new tasks"),
    Filter(passes=has_resources, reason="insufficient resources on {nodes}"),
    Filter(passes=meets_constraints, reason="scheduling constraints not satisfied on {nodes}"),
    Filter(passes=has_platform, reason="unsupported platform on {nodes}"),
    Filter(passes=has_ports, reason="host-mode port already in use on {nodes}"),
    Filter(passes=is_below_max_replicas, reason="max replicas per node limit exceed"),
)


def first_refusal(wanted: Requirements, info: NodeInfo) -> Filter | None:
    """The first filter that keeps the task off the node; None if it may go there."""
    return next((check for check in PIPELINE if not check.passes(wanted, info)), None)


def explain(wanted: Requirements, nodes: Iterable[NodeInfo]) -> str:
    """`no suitable node (insufficient resources on 2 nodes; ...)`, for nodes none of which fits."""
    refusals = Counter(check.reason for info in nodes if (check := first_refusal(wanted, info)))
    reasons = "; ".join(
        reason.format(nodes=f"{count} node" if count == 1 else f"{count} nodes")
        for reason, count in refusals.most_common()
    )
    return f"no suitable node ({reasons})" if reasons else "no suitable node"
