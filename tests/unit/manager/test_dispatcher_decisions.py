"""Sessions, and what each node is told: the deciding half of the dispatcher."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.base.errors import FailedPrecondition
from swarm.base.ids import NetworkID, NodeID, ServiceID, TaskID
from swarm.manager.dispatcher.assignments import Difference, difference, node_items, shared_items
from swarm.manager.dispatcher.messages import PART_BYTES, assignments_messages
from swarm.manager.dispatcher.sessions import Sessions
from swarm.model.objects import (
    Config,
    Network,
    Node,
    NodeStatus,
    Payload,
    Secret,
    Service,
    Task,
    TaskStatus,
    payload_id,
)
from swarm.model.specs import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    FileTarget,
    NetworkSpec,
    SecretReference,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.task_state import TaskState
from swarm.model.types import (
    Endpoint,
    IPAMConfig,
    NetworkAttachment,
    NodeDescription,
    NodeState,
    PortConfig,
    PublishMode,
)
from swarm.model.view import Objects

S = TaskState
N1, N2 = NodeID("n1"), NodeID("n2")
NET = NetworkID("ingress")
WEB = ServiceID("web")


def test_a_node_that_beats_stays_and_one_that_is_silent_goes():
    sessions = Sessions(4)
    sessions.open(N1, "a", 0)
    sessions.open(N2, "b", 0)
    sessions.beat(N1, "a", 3)
    assert sessions.expire(3.9) == ()
    assert sessions.expire(4) == (N2,)
    assert sessions.expire(5) == ()
    assert sessions.expire(7) == (N1,)
    with pytest.raises(FailedPrecondition):
        sessions.beat(N1, "a", 7)


def test_the_newest_session_counts():
    sessions = Sessions(4)
    sessions.open(N1, "old", 0)
    sessions.open(N1, "new", 1)
    with pytest.raises(FailedPrecondition, match="the session is over"):
        sessions.beat(N1, "old", 1)
    assert not sessions.stream_ended(N1, "old")
    assert not sessions.is_broken(N1)
    sessions.beat(N1, "new", 2)


def test_a_broken_stream_makes_a_suspect_until_the_next_session():
    sessions = Sessions(4)
    sessions.open(N1, "a", 0)
    assert sessions.stream_ended(N1, "a")
    assert sessions.is_broken(N1)
    assert sessions.list_whole() == ()
    sessions.open(N1, "b", 1)
    assert not sessions.is_broken(N1)
    assert sessions.list_whole() == (), "the store does not say so yet"
    sessions.book(N1, "a")
    assert sessions.list_whole() == ()
    sessions.book(N1, "b")
    assert sessions.list_whole() == (N1,)


def test_a_node_from_before_has_time_to_turn_up_but_no_session():
    sessions = Sessions(4)
    sessions.expect(N1, 0)
    assert not sessions.has_session(N1)
    assert not sessions.is_current(N1, "")
    with pytest.raises(FailedPrecondition):
        sessions.beat(N1, "", 1)
    sessions.open(N1, "a", 1)
    sessions.expect(N1, 2)
    assert sessions.is_current(N1, "a")
    sessions.drop(N1)
    assert sessions.expire(100) == ()


def test_the_silence_allowed_may_change():
    sessions = Sessions(4)
    sessions.open(N1, "a", 0)
    sessions.set_silence(40)
    assert sessions.expire(39) == ()


# --- what a node is told -----------------------------------------------------------------------------------


def on_ingress(address):
    return (NetworkAttachment(network_id=NET, addresses=(f"{address}/24",)),)


def node(node_id, host, state=NodeState.READY):
    return Node(
        id=node_id,
        description=NodeDescription(data_path_address=host),
        status=NodeStatus(state=state),
        attachments=on_ingress(f"10.0.0.{host[-1]}"),
    )


def task(name, node_id, address, state=S.RUNNING, desired=S.RUNNING):
    return Task(
        id=TaskID(name),
        service_id=WEB,
        node_id=node_id,
        status=TaskStatus(state=state),
        desired_state=desired,
        attachments=on_ingress(address),
    )


@pytest.fixture
def view():
    ports = (
        PortConfig(target_port=80, published_port=8080),
        PortConfig(target_port=81, published_port=8081, publish_mode=PublishMode.HOST),
    )
    return Objects(
        [
            Network(
                id=NET,
                spec=NetworkSpec(name="ingress", ingress=True),
                ipam=(IPAMConfig(subnet="10.0.0.0/24"),),
                vni=4096,
            ),
            Service(id=WEB, spec=ServiceSpec(name="web"), endpoint=Endpoint(ports=ports)),
            node(N1, "192.0.2.1"),
            node(N2, "192.0.2.2"),
            task("a", N1, "10.0.0.11"),
            task("b", N2, "10.0.0.12"),
        ]
    )


def backends(view):
    return [(b.address, b.suspect) for b in shared_items(view)["port/tcp/8080"].backends]


def test_a_node_is_told_of_its_own_tasks_and_of_every_endpoint(view):
    items = node_items(view, N1, shared_items(view))
    assert {k for k in items if k.startswith("task/")} == {"task/a"}
    assert {k for k in items if k.startswith("endpoint/")} == {
        f"endpoint/{NET}/10.0.0.{n}" for n in (1, 2, 11, 12)
    }
    assert items[f"network/{NET}"].host_address == "10.0.0.1"
    assert "port/tcp/8081" not in items


def test_a_node_without_an_address_on_a_network_is_told_of_no_network(view):
    view.put(Node(id=NodeID("n3")))
    view.put(replace(task("c", NodeID("n3"), "10.0.0.13", S.ASSIGNED), attachments=()))
    items = node_items(view, NodeID("n3"), shared_items(view))
    assert set(items) == {"task/c"}


@pytest.mark.parametrize("state", [S.NEW, S.PENDING])
def test_a_task_that_is_not_assigned_is_not_told(view, state):
    view.put(task("c", N1, "10.0.0.13", state))
    assert "task/c" not in node_items(view, N1, {})


@pytest.mark.parametrize("state", [S.COMPLETE, S.FAILED, S.SHUTDOWN])
def test_an_ended_task_stays_told_until_its_record_goes_but_has_no_endpoint(view, state):
    view.put(task("a", N1, "10.0.0.11", state))
    items = node_items(view, N1, shared_items(view))
    assert "task/a" in items
    assert f"endpoint/{NET}/10.0.0.11" not in items


@pytest.mark.parametrize(
    ("state", "desired"),
    [(S.STARTING, S.RUNNING), (S.RUNNING, S.SHUTDOWN), (S.RUNNING, S.REMOVE), (S.FAILED, S.RUNNING)],
)
def test_only_what_runs_and_is_to_run_is_a_backend(view, state, desired):
    view.put(task("a", N1, "10.0.0.11", state, desired))
    assert backends(view) == [("10.0.0.12", False)]


def test_backends_of_down_nodes_leave_and_those_of_suspects_are_marked(view):
    view.put(node(N1, "192.0.2.1", NodeState.UNKNOWN))
    assert backends(view) == [("10.0.0.11", True), ("10.0.0.12", False)]
    view.put(node(N1, "192.0.2.1", NodeState.DOWN))
    assert backends(view) == [("10.0.0.12", False)]
    view.remove(Node, N2)
    assert backends(view) == []


def test_a_difference_is_what_changed_and_what_went():
    a, b = task("a", N1, "10.0.0.11"), task("b", N1, "10.0.0.12")
    told = {"task/a": a, "task/b": b}
    assert not difference(told, dict(told))
    reported = replace(a, status=TaskStatus(state=S.FAILED))
    assert not difference(told, {"task/a": reported, "task/b": b}), "a node knows its own reports"
    stopped = replace(a, desired_state=S.SHUTDOWN)
    found = difference(told, {"task/a": stopped})
    assert found.updates == (("task/a", stopped),)
    assert found.removals == ("task/b",)


# --- secrets and configs ---------------------------------------------------------------------------------


def using(task_id, node_id, state=S.RUNNING, version=0):
    secret = SecretReference(secret_id="s", secret_name="s", file=FileTarget(name="s"), version=version)
    config = ConfigReference(config_id="c", config_name="c", file=FileTarget(name="c"), version=version)
    spec = TaskSpec(container_spec=ContainerSpec(secrets=(secret,), configs=(config,)))
    return replace(task(task_id, node_id, "10.0.0.21", state), spec=spec)


@pytest.fixture
def kept(view):
    """A secret and a config in two versions each, of which the second is current."""
    view.put(Secret(id="s", spec=SecretSpec(name="s"), current=2, last=2))
    view.put(Config(id="c", spec=ConfigSpec(name="c"), current=2, last=2))
    for owner in ("s", "c"):
        for number in (1, 2):
            view.put(Payload(id=payload_id(owner, number), data=f"{owner}{number}".encode()))
    return view


def payloads(view, node_id):
    return {k: i.data for k, i in node_items(view, node_id, {}).items() if k.startswith("payload/")}


def test_a_node_is_told_of_what_its_tasks_use_and_of_nothing_else(kept):
    assert payloads(kept, N1) == {}
    kept.put(using("u", N1, version=1))
    assert payloads(kept, N1) == {"payload/s.1": b"s1", "payload/c.1": b"c1"}
    assert payloads(kept, N2) == {}


def test_a_reference_without_a_version_is_told_of_the_current_one(kept):
    kept.put(using("u", N1))
    assert payloads(kept, N1) == {"payload/s.0": b"s2", "payload/c.0": b"c2"}


@pytest.mark.parametrize("state", [S.PENDING, S.COMPLETE, S.FAILED, S.SHUTDOWN, S.REJECTED])
def test_a_task_that_is_not_there_yet_or_has_ended_needs_none(kept, state):
    kept.put(using("u", N1, state))
    assert payloads(kept, N1) == {}


def test_the_last_task_takes_it_away(kept):
    kept.put(using("u", N1))
    told = node_items(kept, N1, {})
    kept.put(using("u", N1, S.SHUTDOWN))
    assert set(difference(told, node_items(kept, N1, {})).removals) == {"payload/s.0", "payload/c.0"}


def test_what_is_used_comes_before_the_task_that_uses_it(kept):
    kept.put(using("u", N1))
    keys = list(node_items(kept, N1, {}))
    assert keys.index("payload/s.0") < keys.index("task/u")


def test_a_large_step_is_sent_in_parts():
    data = bytes(PART_BYTES // 3)
    items = tuple((f"payload/{n}", Payload(id=str(n), data=data)) for n in range(7))
    parts = list(assignments_messages(Difference(items, ("task/gone",)), 0, 5))
    assert [len(part.updates) for part in parts] == [2, 2, 2, 1]
    assert [part.is_partial for part in parts] == [True, True, True, False]
    assert [list(part.removals) for part in parts] == [[], [], [], ["task/gone"]]
    assert {(p.complete, p.applies_to, p.results_in, p.epoch) for p in parts} == {(True, 0, 1, 5)}


def test_a_step_without_updates_is_one_message():
    (message,) = assignments_messages(Difference((), ("task/gone",)), 3, 5)
    assert list(message.removals) == ["task/gone"]
    assert not message.is_partial
