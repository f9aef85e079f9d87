"""How a host asks for membership: root certificate first, checked against the token, then the secret.

A clock that is wrong would make every certificate look expired or not valid yet, which TLS does not explain:
the manager's time, of its first answer, is compared before anything that could fail for it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, InvalidArgument, SwarmError, Unavailable
from swarm.model.join_token import JoinToken, root_digest
from swarm.proto.identity import CLOCK_SKEW, MANAGER_NAME, Identity, make_csr

TIMEOUT_S = 10.0
CLOCK_TIMEOUT_S = 2.0
LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What a host shows to be let in."""

    token: JoinToken
    key_pem: bytes
    availability: str
    address: str
    """Where this host would serve as a manager."""


async def request_identity(remote: str, application: Application, clock: Clock) -> Identity:
    """A certificate from the manager at `remote` (host:port).

    Raises:
        Unavailable: nobody answers there.
        InvalidArgument: the token is not this cluster's; nothing was told then, or it was refused.
        FailedPrecondition: this host's clock and the manager's are too far apart; nothing was told.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            root, told = await _root(session, remote)
            if root is None or _digest(root) != application.token.root_digest:
                raise InvalidArgument(
                    f"remote CA does not match fingerprint: the token is of another cluster than the manager "
                    f"at {remote}, or of before its CA changed; get one with: swarm join-token worker"
                )
            if told is not None:
                _check_clock(clock.now(), told, remote)
            # Only this one certificate: the answer may hold more, which the token does not vouch for.
            root_pem = root.public_bytes(serialization.Encoding.PEM)
            return await _apply(session, remote, root_pem, application)
        except aiohttp.ClientSSLError as error:
            raise Unavailable(
                f"what answers at {remote} is no manager of the token's cluster (TLS certificate or protocol "
                f"refused): check the address, and what is between"
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"cannot reach a manager at {remote} ({_reason(error)}): "
                "check the address, and that its port is open"
            ) from error


async def compare_clocks(remotes: Sequence[str], clock: Clock) -> None:
    """Ask the managers at `remotes` (host:port for joins) for their time; who does not answer says nothing.

    Nothing is believed of the answers: a forged one can only keep this host from going on.
    Raises: FailedPrecondition when this host's clock is too far from one of them.
    """

    async def ask(session: aiohttp.ClientSession, remote: str) -> datetime | None:
        try:
            return (await _root(session, remote))[1]
        except (SwarmError, aiohttp.ClientError, TimeoutError, OSError):
            return None

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CLOCK_TIMEOUT_S)) as session:
        told = await asyncio.gather(*(ask(session, remote) for remote in remotes))
    for remote, there in zip(remotes, told, strict=True):
        if there is not None:
            _check_clock(clock.now(), there, remote)


async def _root(
    session: aiohttp.ClientSession, remote: str
) -> tuple[x509.Certificate | None, datetime | None]:
    """The root and the time as the peer tells them: worth nothing until the digest has been checked."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    async with session.get(f"https://{remote}/v1/root", ssl=unverified) as response:
        if response.status != 200:
            raise Unavailable(f"{remote} does not serve a cluster (HTTP status {response.status})")
        content = await response.content.read(LIMIT_BYTES)
        told = _read_date(response.headers.get("Date", ""))
    try:
        return x509.load_pem_x509_certificate(content), told
    except ValueError:
        return None, told


async def _apply(
    session: aiohttp.ClientSession, remote: str, root: bytes, application: Application
) -> Identity:
    verified = ssl.create_default_context(cadata=root.decode())
    verified.minimum_version = ssl.TLSVersion.TLSv1_3
    body = {
        "token": str(application.token),
        "csr": make_csr(application.key_pem).decode(),
        "availability": application.availability,
        "address": application.address,
    }
    async with session.post(
        f"https://{remote}/v1/join", json=body, ssl=verified, server_hostname=MANAGER_NAME
    ) as response:
        answer = await response.json()
        if response.status != 200:
            raise _refusal(response.status, str(answer.get("message", "")))
        return Identity(
            key_pem=application.key_pem,
            cert_pem=str(answer["certificate"]).encode(),
            root_pem=str(answer["roots"]).encode(),
        )


def _read_date(header: str) -> datetime | None:
    try:
        return parsedate_to_datetime(header).astimezone(UTC)
    except ValueError:
        return None


def _check_clock(here: datetime, there: datetime, remote: str) -> None:
    if abs(here - there) > CLOCK_SKEW:
        raise FailedPrecondition(
            f"this host's clock says {here:%Y-%m-%d %H:%M:%S} UTC, that of the manager at {remote} says "
            f"{there:%Y-%m-%d %H:%M:%S} UTC: set the one that is wrong (at most an hour may lie between "
            "them), then try again"
        )


def _reason(error: Exception) -> str:
    """aiohttp's own sentence for a refused connection speaks of its objects; the kernel's is short."""
    number = error.errno if isinstance(error, OSError) else None
    return (os.strerror(number) if number and number > 0 else str(error)) or "no answer in time"


def _digest(root: x509.Certificate) -> str:
    return root_digest(root.public_bytes(serialization.Encoding.DER))


def _refusal(status: int, message: str) -> SwarmError:
    if status in (400, 403):
        return InvalidArgument(message)
    return Unavailable(message)
