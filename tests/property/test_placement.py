"""Placement, whatever is asked for and whatever there is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.base.errors import InvalidArgument
from swarm.base.ids import NodeID, ServiceID, TaskID
from swarm.model.constraint import parse_constraints, satisfies
from swarm.model.generic_resources import claims_of, parse_node_resources
from swarm.model.objects import Node, NodeStatus, Task, TaskStatus
from swarm.model.specs import NodeSpec, TaskSpec
from swarm.model.task_state import TaskState
from swarm.model.types import (
    DiscreteGenericResource,
    GenericResource,
    NodeDescription,
    NodeState,
    Placement,
    PlacementPreference,
    ResourceRequirements,
    Resources,
    SpreadOver,
)
from swarm.model.view import Objects
from swarm.scheduler.cluster import Accounting
from swarm.scheduler.schedule import plan_scheduling

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = ("node.id", "node.hostname", "node.role", "node.platform.os", "node.labels.zone", "engine.labels.x")
WORDS = st.sampled_from(["a", "b", "n1", "worker", "linux", "x y"])


def node(name: str, labels=None, resources: Resources | None = None) -> Node:
    return Node(
        id=NodeID(name),
        spec=NodeSpec(labels=labels or {}),
        description=NodeDescription(hostname=name, resources=resources or Resources()),
        status=NodeStatus(state=NodeState.READY),
    )


def task(number: int, spec: TaskSpec) -> Task:
    status = TaskStatus(state=TaskState.PENDING)
    return Task(id=TaskID(f"t{number}"), service_id=ServiceID("s"), slot=number + 1, spec=spec, status=status)


def placed(objects: Objects, seed: int = 0) -> list[Task]:
    """All tasks as they are after one pass of the scheduler, in the order of their slots."""
    for op in plan_scheduling(objects, NOW, Random(seed)).ops:
        objects.put(op.object)
    return sorted(objects.list(Task), key=lambda t: t.slot)


@given(st.text(max_size=60))
def test_a_constraint_parses_or_is_refused(text: str) -> None:
    try:
        parse_constraints([text])
    except InvalidArgument:
        assert not satisfies((text,), node("n1"))
    else:
        satisfies((text,), node("n1"))


@given(
    st.sampled_from(KEYS), st.lists(WORDS, min_size=1, max_size=4), st.dictionaries(st.just("zone"), WORDS)
)
def test_words_and_their_opposites(key: str, values: list[str], labels: dict[str, str]) -> None:
    n1, listed = node("n1", labels), ", ".join(values)
    equal = [satisfies((f"{key}=={value}",), n1) for value in values]
    assert satisfies((f"{key} in ({listed})",), n1) is any(equal)
    assert satisfies((f"{key} not in ({listed})",), n1) is not any(equal)
    assert satisfies(tuple(f"{key}!={value}" for value in values), n1) is not any(equal)
    assert satisfies((f"{key} exists",), n1) is not satisfies((f"{key} !exists",), n1)


ZONES = st.lists(
    st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from(["1", "2"])), min_size=1, max_size=6
)


@given(ZONES, st.integers(1, 20), st.integers(0, 3))
def test_preferences_even_out_level_by_level(places, replicas: int, seed: int) -> None:
    """With room everywhere, zones differ by one task at most; so do the racks of a zone, and their nodes."""
    labels = [{"zone": zone, "rack": zone + rack} if zone else {} for zone, rack in places]
    preferences = tuple(
        PlacementPreference(spread=SpreadOver(spread_descriptor=f"node.labels.{name}"))
        for name in ("zone", "rack")
    )
    spec = TaskSpec(placement=Placement(preferences=preferences))
    objects = Objects([node(f"n{n}", found) for n, found in enumerate(labels)])
    for number in range(replicas):
        objects.put(task(number, spec))
    counts = Counter(t.node_id for t in placed(objects, seed))
    names = [f"n{n}" for n in range(len(labels))]
    zone_of = {name: labels[n].get("zone", "") for n, name in enumerate(names)}
    rack_of = {name: labels[n].get("rack", "") for n, name in enumerate(names)}
    assert is_even(
        Counter({zone: sum(counts[n] for n in names if zone_of[n] == zone) for zone in zone_of.values()})
    )
    for zone in set(zone_of.values()):
        within = [n for n in names if zone_of[n] == zone]
        assert is_even(
            {rack_of[n]: sum(counts[m] for m in within if rack_of[m] == rack_of[n]) for n in within}
        )
    for rack in set(rack_of.values()):
        assert is_even({n: counts[n] for n in names if rack_of[n] == rack and zone_of[n] == rack[:1]})


def is_even(counts) -> bool:
    return max(counts.values()) - min(counts.values()) <= 1


OFFERS = st.lists(
    st.sampled_from([[], ["gpu=A", "gpu=B"], ["gpu=3"], ["gpu=A", "disk=2"], ["disk=1"]]),
    min_size=1,
    max_size=4,
)
WISHES = st.lists(
    st.dictionaries(st.sampled_from(["gpu", "disk"]), st.integers(1, 3), max_size=2), min_size=1, max_size=8
)


@settings(max_examples=200)
@given(OFFERS, WISHES)
def test_no_node_gives_more_than_it_has(offers, wishes) -> None:
    resources = [parse_node_resources(texts) for texts in offers]
    objects = Objects(
        [node(f"n{n}", resources=Resources(generic_resources=found)) for n, found in enumerate(resources)]
    )
    for number, wish in enumerate(wishes):
        wanted = tuple(
            GenericResource(discrete_resource_spec=DiscreteGenericResource(kind=kind, value=value))
            for kind, value in wish.items()
        )
        reserved = Resources(generic_resources=wanted)
        spec = TaskSpec(resources=ResourceRequirements(reservations=reserved))
        # Each of a service of its own: tasks of one service ask for the same.
        objects.put(replace(task(number, spec), service_id=ServiceID(f"s{number}")))
    tasks = placed(objects)
    for number, offered in enumerate(resources):
        given_out = claims_of(
            r for t in tasks if t.node_id == f"n{number}" for r in t.assigned_generic_resources
        )
        assert all(taken <= claims_of(offered)[resource] for resource, taken in given_out.items())
    for found, wish in zip(tasks, wishes, strict=True):
        kinds = Counter()
        for (kind, _), count in claims_of(found.assigned_generic_resources).items():
            kinds[kind] += count
        assert dict(kinds) == (wish if found.node_id else {})
    assert Accounting.of(objects) == Accounting([*objects.list(Node), *reversed(objects.list(Task))])
