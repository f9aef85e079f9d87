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
from swarm.manager.ca.certificates import counts
from swarm.proto.gen import managers_pb2 as pb
from swarm.proto.gen import managers_pb2_grpc
from swarm.proto.identity import Identity, Subject, make_csr
from swarm.proto.roots import CertificateTerms, meets
from swarm.proto.rpc import open_channel, translated

T = TypeVar("T")

TIMEOUT_S = 10.0
RETRY_FIRST_S = 0.5
RETRY_S = 60.0
LONGEST_SLEEP_S = 60.0
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


def renewal_time(subject: Subject, share: float) -> datetime:
    """When to renew: `share` (0.5 to 0.8) of the certificate's life after it was issued."""
    return subject.issued_at + subject.life * share


class Renewer:
    """Renews the certificate at 50 to 80 % of its life, and when managers want another one."""

    def __init__(
        self,
        clock: Clock,
        identity: Callable[[], Identity],
        obtain: Callable[[], Awaitable[Identity]],
        replace: Callable[[Identity], None],
    ) -> None:
        """`obtain` gets the next one."""
        self._clock = clock
        self._identity = identity
        self._obtain = obtain
        self._replace = replace
        self._terms: CertificateTerms | None = None
        self._told = asyncio.Event()

    def want(self, terms: CertificateTerms) -> None:
        """What managers want the certificate to be like from now on."""
        self._terms = terms
        self._told.set()

    async def run(self) -> None:
        share = random.uniform(0.5, 0.8)  # noqa: S311 - spreads the renewals of many nodes
        backoff = RETRY_FIRST_S
        while True:
            if not self._is_due(share):
                backoff = RETRY_FIRST_S
                await self._sleep(self._left(share))
                continue
            try:
                self._replace(await self._obtain())
            except SwarmError as error:
                expires = str(self._identity().subject.not_after)
                log.warning("certificate.not.renewed", reason=str(error), expires=expires)
            else:
                log.info("certificate.renewed", expires=str(self._identity().subject.not_after))
                if not self._is_due(share):
                    continue
            # A manager may not have seen yet what another one has told, or this clock is ahead of theirs.
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, RETRY_S)

    def _is_due(self, share: float) -> bool:
        if self._left(share) <= timedelta(0) or not self._meets():
            return True
        return not counts(self._identity(), self._clock.now())

    def _left(self, share: float) -> timedelta:
        return renewal_time(self._identity().subject, share) - self._clock.now()

    def _meets(self) -> bool:
        return self._terms is None or meets(self._identity(), self._terms)

    async def _sleep(self, left: timedelta) -> None:
        """Until the managers want something, or it may be time."""
        try:
            async with asyncio.timeout(min(left.total_seconds(), LONGEST_SLEEP_S)):
                await self._told.wait()
        except TimeoutError:
            return
        self._told.clear()
