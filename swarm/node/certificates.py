"""What a node asks managers for on its own behalf: certificates, and a place among them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import grpc.aio

from swarm.base.clock import Clock
from swarm.base.errors import SwarmError, Unavailable
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.gen import managers_pb2_grpc
from swarm.proto.identity import Identity, make_csr
from swarm.proto.rpc import open_channel, translated

T = TypeVar("T")

TIMEOUT_S = 10.0
RETRY_S = 60.0
LONGEST_SLEEP_S = 3600.0
"""The clock may be set meanwhile: look at it now and then."""

log = get_logger("certificate")


async def ask_managers(
    targets: Sequence[str], identity: Identity, make_stub: Callable[[grpc.aio.Channel], Any],
    call: Callable[[Any], Awaitable[T]],
) -> T:  # fmt: skip
    """Make an RPC to the first manager that answers it. Raises the last one's error."""
    problem: SwarmError = Unavailable("no other manager is known")
    for target in targets:
        async with open_channel(target, identity) as channel:
            try:
                return await translated(call(make_stub(channel)))
            except SwarmError as error:
                problem = error
    raise problem


async def renew(targets: Sequence[str], identity: Identity) -> Identity:
    """A new certificate for the same key, with the role that the node now has. Raises: SwarmError."""
    request = pb.RenewNodeCertificateRequest(csr_pem=make_csr(identity.key_pem))

    async def ask(stub: managers_pb2_grpc.NodeCAAsyncStub) -> pb.RenewNodeCertificateResponse:
        return await stub.RenewNodeCertificate(request, timeout=TIMEOUT_S)

    answer = await ask_managers(targets, identity, managers_pb2_grpc.NodeCAStub, ask)
    failpoint("certificate.renewed")
    return Identity(key_pem=identity.key_pem, cert_pem=answer.certificate_pem, root_pem=answer.root_pem)


def renewal_time(not_before: datetime, not_after: datetime, share: float) -> datetime:
    """When to renew: `share` (0.5 to 0.8) of the certificate's life after its start."""
    return not_before + (not_after - not_before) * share


class Renewer:
    """Renews the certificate at 50 to 80 % of its life, and again and again while that fails."""

    def __init__(
        self,
        clock: Clock,
        identity: Callable[[], Identity],
        managers: Callable[[], Sequence[str]],
        replace: Callable[[Identity], None],
    ) -> None:
        self._clock = clock
        self._identity = identity
        self._managers = managers
        self._replace = replace

    async def run(self) -> None:
        share = random.uniform(0.5, 0.8)  # noqa: S311 - spreads the renewals of many nodes
        while True:
            subject = self._identity().subject
            due = renewal_time(subject.not_before, subject.not_after, share)
            left = due - self._clock.now()
            if left > timedelta(0):
                await asyncio.sleep(min(left.total_seconds(), LONGEST_SLEEP_S))
                continue
            try:
                self._replace(await renew(self._managers(), self._identity()))
            except SwarmError as error:
                log.warning("certificate.not.renewed", reason=str(error), expires=str(subject.not_after))
                await asyncio.sleep(RETRY_S)
            else:
                log.info("certificate.renewed")
