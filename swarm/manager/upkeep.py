"""Keeps the store usable: every manager watches its own member, the one whose member leads raft sees to all.

Not the cluster's leader: a store that is full takes no beats, so there is none then. Each manager defragments
its own member, whose client port is on loopback; raft's leader asks them one after the other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, SwarmError, Unavailable
from swarm.base.failpoint import failpoint
from swarm.base.ids import NodeID
from swarm.base.log import get_logger
from swarm.manager.beats import ManagerBeats
from swarm.manager.store_check import UNDECIDED, StoreCheck, StoreHash, compare
from swarm.manager.upkeep_plan import MemberUse, is_pressed, plan_disarm, plan_turns
from swarm.model.defaults import CLUSTER_PORT
from swarm.model.objects import Node
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.gen import managers_pb2_grpc
from swarm.proto.identity import Identity
from swarm.proto.rpc import open_channel, translated
from swarm.store.health import STARTING, Health, MemberFacts, StoreState, judge, judge_damage
from swarm.store.members import HASH_S, Alarm, Member, Members, MemberStatus
from swarm.store.store import Store

T = TypeVar("T")

LOOK_EVERY_S = 2.0
PRESSED_EVERY_S = 30.0
ALARMED_EVERY_S = 5.0
"""Between two compactions out of turn: one that did not help is not repeated at once."""
ASK_S = 1.5
DEFRAGMENT_S = 90.0

log = get_logger("upkeep")


class Compactor(Protocol):
    async def revision(self) -> int: ...

    async def compact(self, revision: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMember:
    """The member of the store that this manager runs."""

    members: Members
    compactor: Compactor
    quota_bytes: int
    free_bytes: Callable[[], int]
    problem: Callable[[], Health | None]
    """Why its process does not run; None while it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """A member of the store, for people."""

    node_id: str
    address: str
    is_learner: bool
    status: pb.StoreStatusResponse | None
    """None when its manager does not answer."""


class StoreKeeper:
    def __init__(
        self,
        store: Store,
        own: OwnMember | None,
        beats: ManagerBeats,
        clock: Clock,
        identity: Callable[[], Identity],
    ) -> None:
        """`own` is None with a store that others run: then it is only looked at."""
        self._store = store
        self._own = own
        self._beats = beats
        self._clock = clock
        self._identity = identity
        self._me = identity().subject.node_id
        self._health = STARTING
        self._defragmenting = asyncio.Lock()
        self._pressed_at = float("-inf")
        self._compacted = 0
        """The revision up to which history was given up last."""
        self._distrusted: tuple[int, float] = (-1, float("-inf"))
        """For which compaction, and when, members that said that they were full were not believed."""
        self._check = StoreCheck(clock.monotonic())

    @property
    def health(self) -> Health:
        """As of the last look."""
        return self._health

    @property
    def finding(self) -> str:
        """What speaks against this manager's data; empty for nothing."""
        return self._store.damage or self._check.finding

    @property
    def is_trustworthy(self) -> bool:
        """Whether nothing tells that what this manager reads is wrong: it may decide, and answer, then."""
        return self.finding in ("", UNDECIDED)

    def refuse_damaged(self) -> None:
        """Raises Unavailable, with the way out, when this manager is not to be believed."""
        damaged = judge_damage(self.finding)
        if damaged is not None and not self.is_trustworthy:
            raise Unavailable(damaged.message)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._look()
                if self._own is not None and self._health.state is not StoreState.NO_QUORUM:
                    await self._keep(self._own)
                    if self._check.is_due(self._clock.monotonic()):
                        await self._compare(self._own)
            except (SwarmError, TimeoutError) as error:
                log.info("upkeep.postponed", reason=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def status(self) -> pb.StoreStatusResponse:
        """This manager's own member, now."""
        found = await self._look()
        answer = pb.StoreStatusResponse(state=self._health.state, message=self._health.message)
        if self._own is not None:
            answer.quota_bytes = self._own.quota_bytes
        if found is not None:
            answer.member_id, answer.version = found.id, found.version
            answer.leads, answer.is_learner = found.leader == found.id, found.is_learner
            answer.size_bytes, answer.used_bytes = found.size_bytes, found.used_bytes
        return answer

    async def defragment(self) -> None:
        """This manager's own member. Raises: Unavailable; FailedPrecondition when it runs none."""
        if self._own is None:
            raise FailedPrecondition("this manager runs no member of the store")
        async with self._defragmenting:
            failpoint("upkeep.defragment.before")
            await self._own.members.defragment()
            failpoint("upkeep.defragment.after")
            log.info("store.defragmented")

    async def hash(self, revision: int) -> StoreHash:
        """Of this manager's own member. Raises: Unavailable; FailedPrecondition when it runs none."""
        if self._own is None:
            raise FailedPrecondition("this manager runs no member of the store")
        return StoreHash(*await self._own.members.hash(revision))

    async def report(self) -> tuple[MemberReport, ...]:
        """All members, each asked now; those that do not answer in time have no status."""
        if self._own is None:
            return ()
        members = await self._own.members.list()
        statuses = await asyncio.gather(*(self._status_of(m.name) for m in members))
        return tuple(
            MemberReport(node_id=m.name, address=m.peer_url, is_learner=m.is_learner, status=status)
            for m, status in zip(members, statuses, strict=True)
        )

    # --- this manager's own member ---------------------------------------------------------------------

    async def _look(self) -> MemberStatus | None:
        status: MemberStatus | None = None
        alarms: tuple[Alarm, ...] = ()
        if self._own is not None:
            problem = self._own.problem()
            try:
                status = await self._own.members.status()
                alarms = await self._own.members.alarms()
            except Unavailable:
                text = "etcd runs and does not answer"
                self._note(problem or Health(state=StoreState.FAILED, message=text))
                return None
        facts = MemberFacts(
            has_leader=status is None or status.leader != 0,
            is_learner=status is not None and status.is_learner,
            alarms=tuple(a.kind for a in alarms),
            own_alarms=tuple(a.kind for a in alarms if status is not None and a.member_id == status.id),
            free_bytes=self._own.free_bytes() if self._own else sys.maxsize,
            silent_s=self._store.silent_for_s,
            finding=self.finding,
            commits_s=self._beats.commits_s,
        )
        self._note(judge(facts))
        return status

    def _note(self, health: Health) -> None:
        if health.state is not self._health.state:
            log.warning("store.state", was=self._health.state, now=health.state, reason=health.message)
        self._health = health

    async def _compare(self, own: OwnMember) -> None:
        """With the members that vote: a learner may lack what it has not got yet."""
        outcome = None
        try:
            revision = await own.compactor.revision()
            mine = await self.hash(revision)
            others = [m.name for m in await own.members.list() if m.name != self._me and not m.is_learner]
            found = await asyncio.gather(*(self._hash_of(name, revision) for name in others))
            outcome = compare(mine, [hashed for hashed in found if hashed is not None])
        finally:
            self._check.take(outcome, self._clock.monotonic())
        if outcome:
            log.warning("store.differs", revision=revision, reason=outcome)

    async def _hash_of(self, node_id: str, revision: int) -> StoreHash | None:
        async def ask(stub: managers_pb2_grpc.ManagersAsyncStub) -> pb.HashStoreResponse:
            return await stub.HashStore(pb.HashStoreRequest(revision=revision), timeout=HASH_S)

        try:
            answer = await self._ask(node_id, ask)
        except SwarmError:
            return None
        return StoreHash(answer.hash, answer.compact_revision)

    # --- all members, by the manager whose member leads raft -------------------------------------------

    async def _keep(self, own: OwnMember) -> None:
        status = await own.members.status()
        if status.leader != status.id:
            return
        members, alarms = await own.members.list(), await own.members.alarms()
        uses = await self._uses(members)
        pressed = is_pressed(uses, alarms)
        pause_s = ALARMED_EVERY_S if alarms else PRESSED_EVERY_S
        now = self._clock.monotonic()
        if pressed and now - self._pressed_at >= pause_s:
            self._pressed_at = now
            self._compacted = await own.compactor.revision()
            log.warning("store.compacts", revision=self._compacted, alarms=len(alarms))
            await _compact(own.compactor, self._compacted)
            return  # the other members delete behind our back: the next look sees what came of it
        has_learner = any(m.is_learner for m in members)
        distrust = any(a.kind == "NOSPACE" for a in alarms) and self._may_distrust(now)
        for use in plan_turns(uses, has_learner=has_learner, pressed=pressed, distrust=distrust):
            log.warning("store.defragments", node_id=use.node_id, size=use.size_bytes, used=use.used_bytes)
            if use.node_id == self._me:
                await self.defragment()
            else:
                await self._ask(use.node_id, _defragment)
        if distrust:
            self._distrusted = (self._compacted, now)
        if alarms:
            await self._disarm(own, alarms, members)

    def _may_distrust(self, now: float) -> bool:
        """Once for each compaction, and then seldom: a store that is really full gains nothing by it."""
        revision, at = self._distrusted
        return revision != self._compacted or now - at >= PRESSED_EVERY_S

    async def _disarm(self, own: OwnMember, alarms: tuple[Alarm, ...], members: tuple[Member, ...]) -> None:
        for alarm in plan_disarm(alarms, await self._uses(members), [m.id for m in members]):
            failpoint("upkeep.disarm.before")
            await own.members.disarm(alarm)
            failpoint("upkeep.disarm.after")
            log.warning("store.alarm.cleared", kind=alarm.kind, member=f"{alarm.member_id:x}")

    async def _uses(self, members: tuple[Member, ...]) -> tuple[MemberUse, ...]:
        statuses = await asyncio.gather(*(self._status_of(m.name) for m in members))
        return tuple(
            MemberUse(
                member_id=m.id,
                node_id=m.name,
                leads=status.leads,
                size_bytes=status.size_bytes,
                used_bytes=status.used_bytes,
                quota_bytes=status.quota_bytes,
            )
            for m, status in zip(members, statuses, strict=True)
            if status is not None and status.quota_bytes
        )

    async def _status_of(self, node_id: str) -> pb.StoreStatusResponse | None:
        if node_id == self._me:
            return await self.status()
        try:
            return await self._ask(node_id, _status)
        except SwarmError:
            return None

    async def _ask(
        self, node_id: str, call: Callable[[managers_pb2_grpc.ManagersAsyncStub], Awaitable[T]]
    ) -> T:
        node = self._store.view.get(Node, NodeID(node_id))
        if node is None or node.manager_status is None:
            raise Unavailable(f"node {node_id} is no manager")
        target = f"{node.manager_status.addr.rpartition(':')[0]}:{CLUSTER_PORT}"
        async with open_channel(target, self._identity()) as channel:
            return await translated(call(managers_pb2_grpc.ManagersStub(channel)))


async def _status(stub: managers_pb2_grpc.ManagersAsyncStub) -> pb.StoreStatusResponse:
    return await stub.StoreStatus(pb.StoreStatusRequest(), timeout=ASK_S)


async def _defragment(stub: managers_pb2_grpc.ManagersAsyncStub) -> pb.DefragmentStoreResponse:
    return await stub.DefragmentStore(pb.DefragmentStoreRequest(), timeout=DEFRAGMENT_S)


async def _compact(compactor: Compactor, revision: int) -> None:
    """Another compaction may have been there first: that is as good."""
    try:
        failpoint("upkeep.compact.before")
        await compactor.compact(revision)
        failpoint("upkeep.compact.after")
    except Unavailable as error:
        log.info("store.not.compacted", reason=str(error))
