"""What a manager asks the other ones for: a place in their store, to be made a voter there, to be let go.

In: who this node is and where the others serve. Out: their answers. Nothing is kept here.
etcd lets its members change only while those that are up have been so for five seconds, so whatever changes
them has patience.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, PermissionDenied, SwarmError, Unavailable
from swarm.base.log import get_logger
from swarm.manager.ca.etcd_ca import EtcdCA
from swarm.manager.members import Secrets
from swarm.node.certificates import ask_managers
from swarm.node.files import Membership
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.gen import managers_pb2_grpc
from swarm.proto.identity import Identity
from swarm.secrets.keyring import Keyring
from swarm.store.etcd_process import check_version
from swarm.store.external import ExternalEtcd
from swarm.store.members import Members

ASK_S = 10.0
CATCH_UP_EVERY_S = 0.3
AGAIN_S = 0.5
LEAVE_TIMEOUT_S = 5.0
LEAVE_PATIENCE_S = 8.0
"""A member that goes without having been let go may take the quorum with it."""
REPAIR_PATIENCE_S = 30.0
"""Two changes, each of which may wait for the same five seconds, and for a leader of raft in between."""
TOO_NEW = "unhealthy cluster"
"""etcd's words for a member that has not been there for long enough."""

ASKING = "asking the other managers for a new place in the store"
WAITING = "the store lets its members change when those that are up have been so for five seconds"
FILLING = "the other managers fill this one's part of the store"

T = TypeVar("T")

log = get_logger("node")


@dataclass(frozen=True, slots=True)
class _Patience:
    """With a change that the others do not let happen yet."""

    seconds: float
    may_pass: Callable[[SwarmError], bool]
    on_wait: Callable[[SwarmError], None] = lambda _: None
    """Told when it waits, and when it is for another reason than before."""


class StorePlace:
    def __init__(
        self, clock: Clock, identity: Callable[[], Identity], others: Callable[[], Sequence[str]]
    ) -> None:
        """`others` are where other managers serve, host:port."""
        self._clock = clock
        self._identity = identity
        self._others = others

    async def ask(self, address: str, *, replace_member: bool = False) -> pb.JoinStoreResponse:
        """For a place of the member at `address`, or for a new one in place of the one it has.

        Without an etcd of this host's own, only a store that others run can be joined.
        Raises: Unavailable; FailedPrecondition when this host cannot run a member.
        """
        lacking = None
        try:
            await check_version()
        except FailedPrecondition as error:
            address, lacking = "", error
        request = pb.JoinStoreRequest(address=address, replace=replace_member)

        async def join(stub: managers_pb2_grpc.ManagersAsyncStub) -> pb.JoinStoreResponse:
            return await stub.JoinStore(request, timeout=ASK_S)

        try:
            return await self._ask(join)
        except FailedPrecondition as error:
            raise lacking or error from None

    async def ask_for_another(self, address: str, tell: Callable[[str], None]) -> pb.JoinStoreResponse:
        """A new place for a member that is beyond repair; `tell` hears of each step.

        Raises: Unavailable, FailedPrecondition.
        """
        tell(ASKING)
        patience = _Patience(
            REPAIR_PATIENCE_S,
            lambda error: isinstance(error, Unavailable),
            lambda error: tell(f"waiting: {WAITING if TOO_NEW in str(error) else error}"),
        )
        place = await self._patiently(lambda: self.ask(address, replace_member=True), patience)
        if place is None:
            raise Unavailable("no other manager is known")
        tell(FILLING)
        return place

    async def catch_up(self, membership: Membership, members: Members | None) -> None:
        """Until this member votes; without one, until the managers' records say that this is a manager."""
        while True:
            try:
                status = await members.status() if members else None
                request = pb.CatchUpRequest(
                    member_id=int(membership.member_id, 16),
                    applied_index=status.applied_index if status else 0,
                    join_address=f"{membership.advertise_address}:{membership.join_port}",
                )

                async def tell(
                    stub: managers_pb2_grpc.ManagersAsyncStub, request: pb.CatchUpRequest = request
                ) -> pb.CatchUpResponse:
                    return await stub.CatchUp(request, timeout=ASK_S)

                if (await self._ask(tell)).is_voter:
                    return
            except SwarmError as error:
                log.info("manager.catching.up", reason=str(error))
            await asyncio.sleep(CATCH_UP_EVERY_S)

    async def leave(self) -> None:
        """Have another manager, if there is one, take this one out of the store; best effort.

        Asked again while there is patience: the managers may have to elect a leader anew once this member is
        out, before they can note it.
        """

        async def leave(stub: managers_pb2_grpc.ManagersAsyncStub) -> pb.LeaveStoreResponse:
            return await stub.LeaveStore(pb.LeaveStoreRequest(), timeout=LEAVE_TIMEOUT_S)

        patience = _Patience(LEAVE_PATIENCE_S, lambda error: not isinstance(error, PermissionDenied))
        try:
            await self._patiently(lambda: self._ask(leave), patience)
        except SwarmError as error:
            log.info("store.not.left", reason=str(error))

    async def _patiently(self, change: Callable[[], Awaitable[T]], patience: _Patience) -> T | None:
        """A change of the store's members, again while what keeps it may pass; None with nobody to ask."""
        began, told = self._clock.monotonic(), ""
        while self._others():
            try:
                return await change()
            except SwarmError as error:
                if not patience.may_pass(error) or self._clock.monotonic() - began >= patience.seconds:
                    raise
                if str(error) != told:
                    told = str(error)
                    patience.on_wait(error)
            await asyncio.sleep(AGAIN_S)
        return None

    async def _ask(self, call: Callable[[managers_pb2_grpc.ManagersAsyncStub], Awaitable[T]]) -> T:
        return await ask_managers(self._others(), self._identity(), managers_pb2_grpc.ManagersStub, call)


def secrets_of(answer: pb.JoinStoreResponse) -> Secrets:
    """What managers share, as another one has given it with a place."""
    if not answer.endpoints:
        store_ca = EtcdCA(answer.store_ca_certificate_pem, answer.store_ca_key_pem)
        return Secrets(ring=Keyring(answer.data_keys), store_ca=store_ca)
    external = ExternalEtcd(
        endpoints=tuple(answer.endpoints),
        ca_pem=answer.store_ca_certificate_pem,
        cert_pem=answer.store_certificate_pem,
        key_pem=answer.store_key_pem,
    )
    return Secrets(ring=Keyring(answer.data_keys), store_ca=None, external=external)
