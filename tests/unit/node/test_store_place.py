"""What a manager asks the others for: it has patience with what may pass, and says what it waits for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import FailedPrecondition, PermissionDenied, SwarmError, Unavailable
from swarm.node import store_place
from swarm.node.store_place import ASKING, FILLING, REPAIR_PATIENCE_S, WAITING, StorePlace
from swarm.proto.gen import managers_pb2 as pb

TOO_NEW = Unavailable("the managers' store: etcdserver: unhealthy cluster")
PLACE = pb.JoinStoreResponse(member_id=7)


@pytest.fixture
def others(monkeypatch):
    """Answers of the other managers, one after the other; the last one is repeated."""
    answers: list[object] = []

    async def ask(*_):
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, SwarmError):
            raise found
        return found

    async def version():
        return "3.4.23"

    monkeypatch.setattr(store_place, "ask_managers", ask)
    monkeypatch.setattr(store_place, "check_version", version)
    monkeypatch.setattr(store_place, "AGAIN_S", 0.0)
    return answers


class Asking:
    def __init__(self, per_wait_s: float = 0.0) -> None:
        self.told: list[str] = []
        self._clock = FakeClock()
        self._per_wait = timedelta(seconds=per_wait_s)
        self.place = StorePlace(self._clock, lambda: None, lambda: ["192.0.2.1:2378"])

    def tell(self, step: str) -> None:
        self.told.append(step)
        if step.startswith("waiting"):
            self._clock.advance(self._per_wait)


async def test_it_waits_until_the_others_may_change(others):
    asking = Asking()
    others += [TOO_NEW, TOO_NEW, Unavailable("the manager does not answer"), TOO_NEW, PLACE]
    assert await asking.place.ask_for_another("192.0.2.9", asking.tell) == PLACE
    waits = [f"waiting: {WAITING}", "waiting: the manager does not answer", f"waiting: {WAITING}"]
    assert asking.told == [ASKING, *waits, FILLING], "each reason once, until it changes"


async def test_not_for_ever(others):
    asking = Asking(per_wait_s=REPAIR_PATIENCE_S)
    others.append(TOO_NEW)
    with pytest.raises(Unavailable, match="unhealthy cluster"):
        await asking.place.ask_for_another("192.0.2.9", asking.tell)
    assert asking.told == [ASKING, f"waiting: {WAITING}"]


@pytest.mark.parametrize(
    "refusal", [FailedPrecondition("it has no etcd"), PermissionDenied("promote it first")]
)
async def test_what_does_not_pass_is_not_waited_for(others, refusal):
    asking = Asking()
    others.append(refusal)
    with pytest.raises(type(refusal)):
        await asking.place.ask_for_another("192.0.2.9", asking.tell)
    assert asking.told == [ASKING]


async def test_leaving_is_best_effort(others):
    others.append(PermissionDenied("removed"))
    await Asking().place.leave()
