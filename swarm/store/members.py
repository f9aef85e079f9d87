"""The members of the managers' etcd: added as learners, promoted when caught up, removed. Over etcd's API.

Invariant: a member votes only when it has caught up, and etcd itself refuses a second learner and any change
that would cost the quorum (`--strict-reconfig-check`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio

from swarm.base.errors import Unavailable
from swarm.proto.gen.etcd import rpc_pb2, rpc_pb2_grpc

T = TypeVar("T")

TIMEOUT_S = 5.0
DEFRAGMENT_S = 60.0
HASH_S = 30.0
"""It reads the whole database."""


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    name: str
    """The node's id; empty until the member has started."""
    peer_url: str
    is_learner: bool


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What the local member says of itself."""

    id: int
    version: str
    leader: int
    """Member that leads raft; 0 when there is none."""
    applied_index: int
    is_learner: bool
    size_bytes: int
    used_bytes: int
    """Of `size_bytes`; the rest can be given back by defragmenting."""


@dataclass(frozen=True, slots=True)
class Alarm:
    member_id: int
    kind: str
    """NOSPACE or CORRUPT."""


class Members:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._cluster = rpc_pb2_grpc.ClusterStub(channel)
        self._maintenance = rpc_pb2_grpc.MaintenanceStub(channel)

    async def list(self) -> tuple[Member, ...]:
        response = await _call(self._cluster.MemberList(rpc_pb2.MemberListRequest(), timeout=TIMEOUT_S))
        return tuple(_member(m) for m in response.members)

    async def add_learner(self, peer_url: str) -> int:
        """The new member's id.

        Raises: Unavailable while another learner is catching up, or the quorum would be at risk.
        """
        request = rpc_pb2.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
        response = await _call(self._cluster.MemberAdd(request, timeout=TIMEOUT_S))
        return response.member.ID

    async def promote(self, member_id: int) -> None:
        """Make a learner a voter. Raises: Unavailable while etcd finds it too far behind."""
        await _call(
            self._cluster.MemberPromote(rpc_pb2.MemberPromoteRequest(ID=member_id), timeout=TIMEOUT_S)
        )

    async def set_peer_url(self, member_id: int, peer_url: str) -> None:
        """Where the others find the member from now on."""
        request = rpc_pb2.MemberUpdateRequest(ID=member_id, peerURLs=[peer_url])
        await _call(self._cluster.MemberUpdate(request, timeout=TIMEOUT_S))

    async def remove(self, member_id: int) -> None:
        """Take a member out; one that is out already is fine. Raises: Unavailable."""
        try:
            await _call(
                self._cluster.MemberRemove(rpc_pb2.MemberRemoveRequest(ID=member_id), timeout=TIMEOUT_S)
            )
        except _NoSuchMember:
            return

    async def status(self) -> MemberStatus:
        """Of the local member; answered also by a learner and without a quorum."""
        found = await _call(self._maintenance.Status(rpc_pb2.StatusRequest(), timeout=TIMEOUT_S))
        return MemberStatus(
            found.header.member_id,
            found.version,
            found.leader,
            found.raftAppliedIndex or found.raftIndex,
            found.isLearner,
            found.dbSize,
            found.dbSizeInUse,
        )

    async def alarms(self) -> tuple[Alarm, ...]:
        """Alarms that stand, of any member; answered also by a learner and without a quorum."""
        request = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.GET)
        response = await _call(self._maintenance.Alarm(request, timeout=TIMEOUT_S))
        return tuple(Alarm(a.memberID, rpc_pb2.AlarmType.Name(a.alarm)) for a in response.alarms)

    async def disarm(self, alarm: Alarm) -> None:
        request = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.DEACTIVATE,
            memberID=alarm.member_id,
            alarm=rpc_pb2.AlarmType.Value(alarm.kind),
        )
        await _call(self._maintenance.Alarm(request, timeout=TIMEOUT_S))

    async def hash(self, revision: int) -> tuple[int, int]:
        """(hash of all keys up to the revision, compacted revision) of the local member.

        Raises: Unavailable, also while the member has not come so far.
        """
        request = rpc_pb2.HashKVRequest(revision=revision)
        found = await _call(self._maintenance.HashKV(request, timeout=HASH_S))
        return found.hash, found.compact_revision

    async def defragment(self) -> None:
        """Rewrite the local member's database without its holes; it answers nobody meanwhile."""
        await _call(self._maintenance.Defragment(rpc_pb2.DefragmentRequest(), timeout=DEFRAGMENT_S))

    async def move_leader(self, member_id: int) -> None:
        """Hand raft's leadership on; only the local member, while it leads, can."""
        request = rpc_pb2.MoveLeaderRequest(targetID=member_id)
        await _call(self._maintenance.MoveLeader(request, timeout=TIMEOUT_S))


def _member(member: rpc_pb2.Member) -> Member:
    return Member(member.ID, member.name, member.peerURLs[0] if member.peerURLs else "", member.isLearner)


class _NoSuchMember(Unavailable):
    """While members come and go: what was decided on another list of them may be asked again."""


async def _call(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        details = error.details() or error.code().name
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise _NoSuchMember(f"the managers' store: {details}") from None
        raise Unavailable(f"the managers' store: {details}") from None
