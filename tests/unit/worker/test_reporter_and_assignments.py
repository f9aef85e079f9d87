"""What an agent says (the latest of each task, until acknowledged) and what it takes in."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from swarm.base.errors import FailedPrecondition, SwarmError, Unavailable
from swarm.base.ids import NetworkID, ServiceID, TaskID
from swarm.model.dataplane import (
    Backend,
    NetworkEndpoint,
    NetworkService,
    OverlayEndpoint,
    OverlayNetwork,
    PublishedPort,
    ServiceBackend,
)
from swarm.model.objects import Payload, Task, TaskStatus
from swarm.model.task_state import TaskState
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.worker.assignments import NO_CHANGES, Assignments
from swarm.worker.reporter import BATCH, Reporter

S = TaskState


def a_task(name, state=S.RUNNING):
    return Task(id=TaskID(name), status=TaskStatus(state=state))


class Manager:
    """Takes reports; `held` keeps the answer back, `error` is the answer."""

    def __init__(self) -> None:
        self.sent: list[dict[str, S]] = []
        self.sessions: list[str] = []
        self.held: asyncio.Event | None = None
        self.error: SwarmError | None = None
        self.got = asyncio.Event()

    def UpdateTaskStatus(self, request, timeout):
        return self._take(request)

    async def _take(self, request):
        self.sessions.append(request.session_id)
        self.sent.append({u.task_id: S(u.status.state) for u in request.updates})
        self.got.set()
        if self.held:
            await self.held.wait()
        if self.error is not None:
            raise self.error

    async def until(self, count):
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                self.got.clear()
                await self.got.wait()


@pytest.fixture
def manager():
    return Manager()


@pytest.fixture
async def session(manager):
    running = []

    def run(reporter, session_id="s1"):
        running.append(asyncio.ensure_future(reporter.run(manager, session_id)))
        return running[-1]

    yield run
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


async def test_the_latest_of_each_task_goes_out_together(manager, session):
    reporter = Reporter()
    session(reporter)
    for state in (S.STARTING, S.RUNNING):
        reporter.put(a_task("a", state))
    reporter.put(a_task("b"))
    await manager.until(1)
    assert manager.sent == [{"a": S.RUNNING, "b": S.RUNNING}]


async def test_what_changes_while_it_is_being_sent_is_sent_again(manager, session):
    reporter = Reporter()
    manager.held = asyncio.Event()
    session(reporter)
    reporter.put(a_task("a"))
    await manager.until(1)
    reporter.put(a_task("a", S.COMPLETE))
    manager.held.set()
    await manager.until(2)
    assert manager.sent == [{"a": S.RUNNING}, {"a": S.COMPLETE}]


async def test_what_was_not_acknowledged_goes_out_in_the_next_session_unasked(manager, session):
    reporter = Reporter()
    manager.error = FailedPrecondition("the session is over")
    reporter.put(a_task("gone", S.COMPLETE))
    with pytest.raises(FailedPrecondition):
        await session(reporter)
    manager.error = None
    reporter.put_all(())
    session(reporter, "s2")
    await manager.until(2)
    assert manager.sent == [{"gone": S.COMPLETE}] * 2
    assert manager.sessions == ["s1", "s2"]


async def test_a_slow_store_of_the_manager_does_not_end_the_session(manager, session):
    reporter = Reporter()
    manager.error = Unavailable("the cluster's store does not answer")
    reporter.put(a_task("web"))
    running = session(reporter)
    await manager.until(1)
    manager.error = None
    await manager.until(2)
    assert manager.sent == [{"web": S.RUNNING}] * 2
    assert not running.done()


async def test_reports_are_sent_in_bounded_batches(manager, session):
    reporter = Reporter()
    reporter.put_all([a_task(f"{n}") for n in range(BATCH + 1)])
    session(reporter)
    await manager.until(2)
    assert [len(sent) for sent in manager.sent] == [BATCH, 1]


# --- assignments -------------------------------------------------------------------------------------------


def message(sequence, *updates, removals=(), epoch=5, complete=None):
    return pb.AssignmentsMessage(
        complete=sequence == 0 if complete is None else complete,
        applies_to=sequence,
        results_in=sequence + 1,
        epoch=epoch,
        updates=[pb.Assignment(key=key, **{kind: codec.encode(item)}) for key, kind, item in updates],
        removals=removals,
    )


TASK = ("task/a", "task", a_task("a"))
NETWORK = ("network/n", "network", OverlayNetwork(id=NetworkID("n"), name="ingress", vni=4096))


def endpoint(address):
    item = NetworkEndpoint(
        network_id=NetworkID("n"), endpoint=OverlayEndpoint(address=address, host="192.0.2.1")
    )
    return f"endpoint/n/{address}", "endpoint", item


def port(*backends):
    item = PublishedPort(
        service_id=ServiceID("web"), published_port=80, target_port=80, backends=tuple(map(backend, backends))
    )
    return "port/tcp/80", "port", item


def backend(address):
    return Backend(address=address)


def service(*addresses):
    backends = tuple(ServiceBackend(address=address, names=("web.1",)) for address in addresses)
    item = NetworkService(network_id="n", service_id="s", name="web", backends=backends)
    return "service/n/s", "service", item


def test_a_services_change_is_the_networks_business():
    known = Assignments()
    known.take(message(0, NETWORK, service("10.0.0.2")))
    changes = known.take(message(1, service("10.0.0.2", "10.0.0.3")))
    assert changes.network_changed
    assert [b.address for b in known.data_plane().services[0].backends] == ["10.0.0.2", "10.0.0.3"]
    known.take(message(2, removals=["service/n/s"]))
    assert known.data_plane().services == ()


def test_complete_then_changes():
    known = Assignments()
    first = known.take(
        message(0, TASK, NETWORK, endpoint("10.0.0.3"), endpoint("10.0.0.2"), port("10.0.0.2"))
    )
    assert [t.id for t in first.assigned] == ["a"]
    assert first.is_complete
    assert first.network_changed
    second = known.take(message(1, port("10.0.0.3"), removals=["endpoint/n/10.0.0.2", "task/a"]))
    assert second.withdrawn == ("a",)
    assert not second.is_complete
    plane = known.data_plane()
    assert [e.address for e in plane.networks[0].endpoints] == ["10.0.0.3"]
    assert [b.address for p in plane.ports for b in p.backends] == ["10.0.0.3"]


def test_a_change_of_tasks_alone_does_not_touch_the_network():
    known = Assignments()
    known.take(message(0, TASK))
    stopped = ("task/a", "task", replace(a_task("a"), desired_state=S.SHUTDOWN))
    changes = known.take(message(1, stopped))
    assert not changes.network_changed
    assert changes.assigned[0].desired_state is S.SHUTDOWN


def test_complete_forgets_what_was_known_before():
    known = Assignments()
    known.take(message(0, NETWORK, endpoint("10.0.0.2"), port("10.0.0.2"), service("10.0.0.2")))
    known.take(message(0, NETWORK))
    assert known.data_plane().ports == known.data_plane().services == ()
    assert known.data_plane().networks[0].endpoints == ()


@pytest.mark.parametrize("sequence", [2, 7])
def test_a_gap_ends_the_stream(sequence):
    known = Assignments()
    known.take(message(0, TASK))
    with pytest.raises(FailedPrecondition, match="jump"):
        known.take(message(sequence, TASK))


def test_a_repeated_message_is_not_taken_twice():
    known = Assignments()
    known.take(message(0, TASK))
    known.take(message(1, NETWORK))
    with pytest.raises(FailedPrecondition):
        known.take(message(1, NETWORK))


def test_nothing_of_a_deposed_leader_is_taken():
    known = Assignments(epoch=9)
    assert known.take(message(0, TASK, NETWORK, epoch=8)) is None
    assert known.data_plane().networks == ()
    assert known.take(message(0, TASK, epoch=9)) is not None
    assert known.take(message(1, NETWORK, epoch=10)) is not None
    assert known.take(message(2, TASK, epoch=9)) is None
    assert known.epoch == 10


# --- secrets and configs, and steps in parts ---------------------------------------------------------------


def payload(name, data=b"x"):
    return f"payload/{name}", "payload", Payload(id=name, data=data)


def test_payloads_come_change_and_go():
    known = Assignments()
    changes = known.take(message(0, payload("s.1", b"one"), payload("c.1"), TASK))
    assert not known.take(message(1, payload("s.2", b"two"), removals=["payload/s.1"])).network_changed
    assert [t.id for t in changes.assigned] == ["a"]
    assert {name: item.data for name, item in known.payloads.items()} == {"s.2": b"two", "c.1": b"x"}
    known.take(message(0, TASK))
    assert known.payloads == {}


def test_nothing_is_told_of_a_payload_by_its_repr():
    known = Assignments()
    known.take(message(0, payload("s.1", b"hunter2")))
    assert "hunter2" not in repr(known)


def part(of):
    of.is_partial = True
    return of


def test_half_a_step_changes_nothing():
    known = Assignments()
    assert known.take(part(message(0, payload("s.1")))) is NO_CHANGES
    assert known.take(part(message(0, NETWORK))) is NO_CHANGES
    assert known.payloads == {}
    assert known.data_plane().networks == ()
    whole = known.take(message(0, TASK))
    assert [t.id for t in whole.assigned] == ["a"]
    assert whole.is_complete
    assert set(known.payloads) == {"s.1"}
    assert known.data_plane().networks


def test_a_new_stream_forgets_the_half_of_an_old_one():
    known = Assignments()
    known.take(part(message(0, payload("s.1"))))
    known.begin()
    known.take(message(0, TASK))
    assert known.payloads == {}


def test_a_part_out_of_sequence_or_of_a_deposed_leader_is_not_taken():
    known = Assignments()
    known.take(message(0, TASK, epoch=9))
    with pytest.raises(FailedPrecondition, match="jump"):
        known.take(part(message(2, payload("s.1"), epoch=9)))
    assert known.take(part(message(1, payload("s.1"), epoch=8))) is None
