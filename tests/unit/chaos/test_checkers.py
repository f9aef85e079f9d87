"""The checks of the chaos harness: what is right passes, and each wrong that they are for is caught."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import replace

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import LeadershipLost, OutOfSequence
from swarm.base.failpoint import parse_failpoints
from swarm.base.ids import NodeID, ServiceID, new_id
from swarm.model.objects import Service, Task
from swarm.model.plan import Create, Update
from swarm.model.specs import ServiceSpec
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.secrets.box import new_data_key
from swarm.secrets.keyring import Keyring
from swarm.store import keys
from swarm.store.kv import Put, TxnResult
from swarm.store.memory import MemoryKV
from swarm.store.store import Store
from swarm.worker.assignments import Assignments
from tests.chaos import invariants
from tests.chaos.drills import Watched
from tests.chaos.history import FOREVER, Operation, Outcome, Recorder, load
from tests.chaos.invariants import Auditor
from tests.chaos.linearizable import Verdict, check, check_key
from tests.chaos.points import ACTIONS, HITS, all_points, in_order, names_in_code
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.watches import Event, Response, check_watches
from tests.chaos.watches import load as load_watch

OK, FAIL, INFO = Outcome.OK, Outcome.FAIL, Outcome.INFO


def op(action, began, ended, *, value=None, version=0, outcome=OK, reason=""):
    ended = FOREVER if outcome is INFO else ended
    return Operation(
        action=action, key="k", began=began, ended=ended, outcome=outcome,
        value=value, version=version, reason=reason,
    )  # fmt: skip


CREATED = op("create", 0, 1, value="a")
READ_A = op("read", 2, 3, value="a", version=5)

RIGHT = {
    "one after the other": [CREATED, READ_A, op("write", 4, 5, value="b", version=5)],
    "a write that is under way may be seen": [
        CREATED,
        op("write", 4, 9, value="b", version=5),
        op("read", 5, 6, value="b", version=6),
    ],
    "or not yet": [CREATED, op("write", 4, 9, value="b", version=5), op("read", 5, 6, value="a", version=5)],
    "one without an answer may have happened": [
        CREATED,
        op("write", 4, 0, value="b", version=5, outcome=INFO),
        op("read", 50, 60, value="b", version=6),
    ],
    "or never": [
        CREATED,
        op("remove", 4, 0, outcome=INFO),
        op("read", 50, 60, value="a", version=5),
    ],
    "the managers raise the version": [CREATED, READ_A, op("read", 4, 5, value="a", version=8)],
    "gone and made again": [
        CREATED,
        op("remove", 2, 3),
        op("remove", 4, 5, outcome=FAIL, reason="absent"),
        op("create", 6, 7, value="b"),
        op("create", 8, 9, value="c", outcome=FAIL, reason="exists"),
        op("read", 10, 11, value="b", version=9),
    ],
    "a refused write is none": [
        CREATED,
        READ_A,
        op("write", 4, 5, value="b", version=4, outcome=FAIL, reason="version"),
        op("read", 6, 7, value="a", version=5),
    ],
}

WRONG = {
    "a lost update: two wrote on one version": [
        CREATED,
        READ_A,
        op("write", 4, 9, value="b", version=5),
        op("write", 5, 8, value="c", version=5),
    ],
    "a stale read": [
        CREATED,
        op("write", 4, 5, value="b", version=5),
        op("read", 6, 7, value="a", version=5),
    ],
    "a version that goes back": [
        CREATED,
        op("read", 2, 3, value="a", version=9),
        op("read", 4, 5, value="a", version=5),
    ],
    "an acknowledged write is lost": [CREATED, op("read", 2, 3, value=None)],
    "a refused write is seen": [
        CREATED,
        op("write", 4, 5, value="b", version=5, outcome=FAIL, reason="version"),
        op("read", 6, 7, value="b", version=6),
    ],
    "what was removed is back": [CREATED, op("remove", 2, 3), op("read", 4, 5, value="a", version=5)],
    "two were created": [CREATED, op("create", 2, 3, value="b")],
    "an unanswered write is seen, then not": [
        CREATED,
        op("write", 4, 0, value="b", version=5, outcome=INFO),
        op("read", 6, 7, value="b", version=6),
        op("read", 8, 9, value="a", version=6),
    ],
    "a read from the future": [CREATED, op("read", 2, 3, value="b", version=6), op("write", 4, 5, value="b")],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_histories_pass(name):
    assert check_key(RIGHT[name]) is Verdict.OK


@pytest.mark.parametrize("name", WRONG)
def test_wrong_histories_are_caught(name):
    assert check_key(WRONG[name]) is Verdict.VIOLATION


def test_the_search_is_bounded_and_says_so():
    many = [CREATED, *(op("write", i, 0, value=str(i), version=i, outcome=INFO) for i in range(2, 20))]
    many.append(op("read", 100, 101, value="never written", version=1))
    assert check_key(many, step_limit=100) is Verdict.UNKNOWN


def test_keys_are_judged_each_by_itself():
    others = [replace(o, key="other") for o in WRONG["a stale read"]]
    assert check([*RIGHT["or never"], *others]) == {"k": Verdict.OK, "other": Verdict.VIOLATION}


def test_a_history_survives_the_file(tmp_path):
    recorder = Recorder(tmp_path / "h")
    first = recorder.invoke("create", "k", value="a")
    with recorder.fault("power cut of h1"):
        second = recorder.invoke("write", "k", value="b", version=3)
        recorder.end(first, OK)
        third = recorder.invoke("read", "k")
    recorder.end(third, OK, value="a", version=3)
    recorder.invoke("remove", "k")
    recorder.end(second, FAIL, reason="version")
    recorder.close()
    found = load(tmp_path / "h")
    assert [(o.action, o.outcome, o.value, o.version, o.reason) for o in found] == [
        ("create", OK, "a", 0, ""),
        ("write", FAIL, "b", 3, "version"),
        ("read", OK, "a", 3, ""),
        ("remove", INFO, None, 0, ""),
    ]
    assert found[3].ended == FOREVER
    lines = (tmp_path / "h").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines].count("note") == 2


# --- invariants ------------------------------------------------------------------------------------------


def task(task_id="t1", *, state="running", desired="running", node="n1", slot=1, address="10.0.0.2/24"):
    return {
        "ID": task_id, "ServiceID": "s1", "Slot": slot, "NodeID": node, "DesiredState": desired,
        "Status": {"State": state},
        "NetworksAttachments": [{"Network": {"ID": "net"}, "Addresses": [address]}],
    }  # fmt: skip


SERVICE = {"ID": "s1", "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 1}}}}


def audit(*answers):
    auditor = Auditor()
    return [sentence for answer in answers for sentence in auditor.look(answer)]


def test_a_life_as_it_should_be():
    states = ("new", "pending", "assigned", "preparing", "running", "shutdown")
    assert not audit(*([task(state=s, node="" if s in ("new", "pending") else "n1")] for s in states))
    assert not invariants.check_identity([task()], [SERVICE])
    assert not invariants.check_converged([SERVICE], [task()])
    assert not invariants.check_addresses([task(), task("t2", address="10.0.0.3/24")])
    assert not invariants.check_addresses([task(), task("t2", state="shutdown")])
    assert not invariants.check_containers({"h1": ["t1"], "h2": ["t2"]})
    assert not invariants.check_no_traces({"h1": []})


@pytest.mark.parametrize(
    ("answers", "number"),
    [
        (([task()], [task(state="starting")]), "I2"),
        (([task(desired="shutdown")], [task()]), "I2"),
        (([task()], [task(node="n2")]), "I3"),
        (([task()], [task(state="shutdown", node="")]), "I3"),
        (([task(node="")],), "I3"),
        (([task(state="remove")],), "I4"),
    ],
)
def test_a_wrong_turn_in_a_life_is_caught(answers, number):
    (sentence,) = audit(*answers)
    assert sentence.startswith(number)


@pytest.mark.parametrize(
    ("broken", "number"),
    [
        (lambda: invariants.check_identity([task(), task()], [SERVICE]), "I1"),
        (lambda: invariants.check_identity([task()], []), "I1"),
        (lambda: invariants.check_converged([SERVICE], []), "I5"),
        (lambda: invariants.check_converged([SERVICE], [task(), task("t2")]), "I5"),
        (
            lambda: invariants.check_converged(
                [SERVICE], [task(), *(task(f"d{n}", state="failed", desired="shutdown") for n in range(6))]
            ),
            "I5",
        ),
        (lambda: invariants.check_containers({"h1": ["t1"], "h2": ["t1"]}), "I8"),
        (lambda: invariants.check_containers({"h1": ["t1", "t1"]}), "I8"),
        (lambda: invariants.check_addresses([task(), task("t2")]), "I9"),
        (lambda: invariants.check_no_traces({"h1": [], "h2": ["conmon"]}), "I10"),
    ],
)
def test_a_broken_state_is_caught(broken, number):
    (sentence,) = broken()
    assert sentence.startswith(number)


# --- parts that are broken on purpose --------------------------------------------------------------------


class AcksTooEarly(MemoryKV):
    """Says yes, then loses every second write, as a store does that syncs later than it answers."""

    def __init__(self):
        super().__init__()
        self._writes = 0

    async def txn(self, compares, writes):
        self._writes += any(isinstance(w, Put) and w.key.startswith(keys.OBJECTS) for w in writes)
        if self._writes % 2 == 0 and self._writes:
            return TxnResult(True, self._revision)
        return await super().txn(compares, writes)


class ComparesNothing(MemoryKV):
    async def txn(self, compares, writes):
        return await super().txn((), writes)


@contextlib.asynccontextmanager
async def store_on(kv):
    store = Store(kv, Keyring([new_data_key()]), FakeClock())
    running = asyncio.ensure_future(store.run())
    await store.ready()
    try:
        yield store
    finally:
        running.cancel()
        await asyncio.wait({running})


async def register_history(store, recorder):
    """Two clients write on what both have read; then the value is read."""
    service = Service(id=ServiceID(new_id()), spec=ServiceSpec(name="k", labels={"v": "a"}))
    await recorded(recorder, "create", "a", 0, store.commit([Create(object=service)]))
    seen = store.view.get(Service, service.id)
    await recorded_read(store, recorder, service)
    for value in ("b", "c"):
        changed = replace(seen, spec=replace(seen.spec, labels={"v": value}))
        write = store.commit([Update(object=changed)])
        await recorded(recorder, "write", value, seen.meta.version.index, write)
    await recorded_read(store, recorder, service)


async def recorded(recorder, action, value, version, work):
    number = recorder.invoke(action, "k", value=value, version=version)
    try:
        await work
    except OutOfSequence:
        recorder.end(number, FAIL, reason="version")
    else:
        recorder.end(number, OK)


async def recorded_read(store, recorder, service):
    number = recorder.invoke("read", "k")
    await store.sync()
    found = store.view.get(Service, service.id)
    recorder.end(number, OK, value=found.spec.labels["v"], version=found.meta.version.index)


@pytest.mark.parametrize(
    ("kv", "verdict"),
    [(MemoryKV, Verdict.OK), (AcksTooEarly, Verdict.VIOLATION), (ComparesNothing, Verdict.VIOLATION)],
)
async def test_a_store_that_lies_is_caught(kv, verdict, tmp_path):
    recorder = Recorder(tmp_path / "h")
    async with store_on(kv()) as store:
        await register_history(store, recorder)
    recorder.close()
    assert check(load(tmp_path / "h")) == {"k": verdict}


async def two_leaders_create(kv):
    """The tasks of one slot after a deposed leader and its successor have both filled it."""
    service_id = ServiceID(new_id())
    async with store_on(kv) as store:
        old = await store.write_raw((), (Put(keys.LEADER, b"n1"),))
        new = await store.write_raw((), (Put(keys.LEADER, b"n2"),))
        for epoch in (new, old):
            made = Task(id=new_id(), service_id=service_id, slot=1, node_id=NodeID("n1"))
            with contextlib.suppress(LeadershipLost):
                await store.apply([Create(object=made)], epoch=epoch)
        return [task(t.id) for t in store.view.list(Task)]


async def test_an_unfenced_leader_is_caught():
    assert not invariants.check_converged([SERVICE], await two_leaders_create(MemoryKV()))
    (sentence,) = invariants.check_converged([SERVICE], await two_leaders_create(ComparesNothing()))
    assert sentence.startswith("I5")


def followed(assignments, *, forgets):
    epochs = []
    for epoch in (5, 7, 5, 8):
        if forgets:
            assignments.epoch = 0
        if assignments.take(pb.AssignmentsMessage(complete=True, epoch=epoch)) is not None:
            epochs.append(epoch)
    return epochs


def test_a_write_of_an_epoch_that_is_over_is_caught():
    assert not invariants.check_fenced([9, 4], [(4, 5), (4, 8), (9, 10), (9, 20)])
    (sentence,) = invariants.check_fenced([4, 9], [(4, 5), (9, 10), (4, 11)])
    assert sentence == "epoch 4 wrote at 11, after 9 had begun"


def test_an_agent_that_forgets_the_epoch_is_caught():
    assert not invariants.check_epochs(followed(Assignments(), forgets=False))
    assert invariants.check_epochs(followed(Assignments(), forgets=True))


# --- watches ---------------------------------------------------------------------------------------------


def responses(*revisions):
    """One response each; a tuple is one response with several events, 0 one without any (of revision 9)."""
    found = []
    for item in revisions:
        numbers = item if isinstance(item, tuple) else (item,) if item else ()
        found.append(
            Response(max(numbers, default=9), tuple(Event(n, f"k{i}") for i, n in enumerate(numbers)))
        )
    return found


def test_watches_as_they_should_be():
    one, other = responses(1, 2, (3, 3), 4, 0, 10), responses((2, 3, 3), 4)
    assert not check_watches({"h1": one, "h2": []})
    assert not check_watches({"h1": responses(1, 2, 3), "h2": responses(2, 3, 4)})
    assert not check_watches({"h1": other})


@pytest.mark.parametrize(
    ("watches", "promise"),
    [
        ({"h1": responses(1, 3, 2)}, "ordered"),
        ({"h1": responses((3, 2))}, "ordered"),
        ({"h1": [*responses(1), Response(2, (Event(2, "a"),)), Response(2, (Event(2, "b"),))]}, "atomic"),
        ({"h1": [Response(2, (Event(2, "a"), Event(2, "a")))]}, "unique"),
        ({"h1": responses(1, 3), "h2": responses(1, 2, 3)}, "reliable"),
        ({"h1": responses(1, 0, 8)}, "bookmarkable"),
    ],
)
def test_a_watch_that_breaks_a_promise_is_caught(watches, promise):
    (sentence,) = check_watches(watches)
    assert sentence.startswith("I7")
    assert f"not {promise}" in sentence


def test_a_stream_that_goes_on_at_the_wrong_place_is_caught():
    """It repeats what was there: neither ordered nor unique."""
    found = check_watches({"h1": responses(1, 2, 3, 2, 3)})
    assert {s.split("not ")[1].split(":")[0].split(",")[0] for s in found} >= {"ordered", "unique"}


def test_a_recording_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path):
    (tmp_path / "w").write_text('{"revision": 2, "events": [[2, "a"]]}\n{"revision": 3, "ev')
    assert load_watch(tmp_path / "w") == [Response(2, (Event(2, "a"),))]


# --- points ----------------------------------------------------------------------------------------------


def test_every_point_has_a_host_a_scenario_and_a_turn():
    points = all_points()
    assert len(set(names_in_code())) >= 60
    assert len(points) == len(names_in_code()) * len(HITS) * len(ACTIONS)
    assert {p.scenario for p in points} == set(SCENARIOS)
    assert all(parse_failpoints(str(p)) for p in points)
    order = in_order(points, random.Random(1))
    assert order == in_order(points, random.Random(1)) != in_order(points, random.Random(2))
    assert sorted(map(str, order)) == sorted(map(str, points))
    assert len({p.name for p in order[: len(names_in_code())]}) == len(names_in_code())


# --- drills ----------------------------------------------------------------------------------------------


def seen_nodes(leader, *down):
    return [
        {
            "Description": {"Hostname": name},
            "Status": {"State": "down" if name in down else "ready"},
            "ManagerStatus": {"Leader": name == leader},
        }
        for name in ("h1", "h2")
    ]


def test_what_moves_while_it_is_watched_is_seen():
    seen = Watched()
    for nodes in (
        seen_nodes("h1"),
        seen_nodes("h1"),
        seen_nodes(""),
        seen_nodes("h2", "h1"),
        seen_nodes("h1"),
    ):
        seen.see(nodes)
    assert (seen.changes, seen.leaders, seen.down, seen.answers) == (2, ["h1", "h2", "h1"], {"h1"}, 5)
