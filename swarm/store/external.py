"""An etcd cluster that others run: its endpoints, a client that goes on when one of them fails, and the check
of what is there before a cluster's state is put into it.

No member of it is ours: nothing here adds, removes, compacts or defragments. A server is trusted by the given
CA and by the name in its endpoint. A read that fails is asked of the next endpoint; a write is not repeated,
for its outcome is unknown, but the next call goes elsewhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from swarm.base.errors import FailedPrecondition, InvalidArgument, Unavailable
from swarm.store import keys
from swarm.store.etcd import EtcdAddress, EtcdKV
from swarm.store.etcd_process import judge_numbers
from swarm.store.kv import Compare, KeyValue, Listing, TxnResult, WatchBatch, Write
from swarm.store.members import Members, MemberStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalEtcd:
    endpoints: tuple[str, ...]
    """https://host:port"""
    ca_pem: bytes = field(repr=False)
    cert_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)


def check_endpoints(endpoints: Sequence[str]) -> tuple[str, ...]:
    """The endpoints as given, each checked. Pure. Raises: InvalidArgument."""
    for endpoint in endpoints:
        parts = urlsplit(endpoint)
        try:
            complete = parts.scheme == "https" and parts.hostname and parts.port
        except ValueError:
            complete = False
        if not complete or parts.path not in ("", "/"):
            raise InvalidArgument(
                f"invalid etcd endpoint {endpoint}: it should be like https://10.0.0.5:2379"
            )
    return tuple(endpoint.rstrip("/") for endpoint in endpoints)


class FailoverKV:
    """The key-value service over several endpoints, of which one is used until it fails."""

    def __init__(self, external: ExternalEtcd) -> None:
        self._members = tuple(_connect(external, endpoint) for endpoint in external.endpoints)
        self._current = 0

    async def aclose(self) -> None:
        for member in self._members:
            await member.aclose()

    async def list(self, prefix: str) -> Listing:
        return await self._read(lambda kv: kv.list(prefix))

    async def revision(self) -> int:
        return await self._read(lambda kv: kv.revision())

    async def get(self, key: str) -> KeyValue | None:
        return await self._read(lambda kv: kv.get(key))

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write]) -> TxnResult:
        return await self._once(lambda kv: kv.txn(compares, writes))

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        used = self._current
        try:
            async for batch in self._members[used].watch(prefix, start_revision):
                yield batch
        except Unavailable:
            self._leave(used)
            raise

    async def compact(self, revision: int) -> None:
        await self._once(lambda kv: kv.compact(revision))

    async def _read(self, call: Callable[[EtcdKV], Awaitable[T]]) -> T:
        for _ in self._members[1:]:
            try:
                return await self._once(call)
            except Unavailable:
                continue
        return await self._once(call)

    async def _once(self, call: Callable[[EtcdKV], Awaitable[T]]) -> T:
        used = self._current
        try:
            return await call(self._members[used])
        except (Unavailable, asyncio.CancelledError):  # cancelled: the caller's patience is over
            self._leave(used)
            raise

    def _leave(self, used: int) -> None:
        """Another call may have gone on already."""
        if self._current == used:
            self._current = (used + 1) % len(self._members)


async def look_at(external: ExternalEtcd) -> tuple[tuple[str, MemberStatus | None], ...]:
    """What each endpoint says of itself; None for one that does not answer."""
    statuses = await asyncio.gather(*(_status(external, endpoint) for endpoint in external.endpoints))
    return tuple(zip(external.endpoints, statuses, strict=True))


async def check_usable(external: ExternalEtcd) -> None:
    """Whether a new cluster may put its state there.

    Raises:
        Unavailable: no endpoint answers.
        FailedPrecondition: a version must not be used, or another cluster's state is there.
    """
    statuses = [status for _, status in await look_at(external) if status is not None]
    if not statuses:
        raise Unavailable(
            f"no etcd answers at {', '.join(external.endpoints)}: check the addresses and the certificates"
        )
    for status in statuses:
        found = re.match(r"(\d+)\.(\d+)\.(\d+)", status.version)
        if found is None:
            raise FailedPrecondition(f"etcd tells a version that is none: {status.version}")
        judge_numbers((int(found[1]), int(found[2]), int(found[3])))
    async with aclosing(FailoverKV(external)) as kv:
        if (await kv.list(keys.PREFIX)).items:
            raise FailedPrecondition(
                f"that etcd has keys under {keys.PREFIX} already, of another swarm: use another etcd, or "
                f"remove them with: etcdctl del --prefix {keys.PREFIX}"
            )


async def _status(external: ExternalEtcd, endpoint: str) -> MemberStatus | None:
    async with aclosing(_connect(external, endpoint)) as kv:
        try:
            return await Members(kv.channel).status()
        except Unavailable:
            return None


def _connect(external: ExternalEtcd, endpoint: str) -> EtcdKV:
    return EtcdKV(
        EtcdAddress(
            target=urlsplit(endpoint).netloc,
            ca_pem=external.ca_pem,
            cert_pem=external.cert_pem,
            key_pem=external.key_pem,
            server_name="",
        )
    )
