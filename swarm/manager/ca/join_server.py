"""Port 2377: what a host without a certificate may ask. HTTPS, two questions.

`GET /v1/root` gives the root certificate, which the joiner checks against its token's digest before it says
anything; `POST /v1/join {"token", "csr"}` gives a node certificate for a valid token. The same key asks twice
and gets the same node. Wrong tokens are compared in constant time and limited per address.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from swarm.base.clock import Clock
from swarm.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    OutOfSequence,
    SwarmError,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.manager.ca.root import Grant, node_id_for, read_csr, sign
from swarm.manager.ca.rotation import issuing, trusted_pem
from swarm.manager.ca.tokens import find_token, use_token
from swarm.model.join_token import parse_token
from swarm.model.objects import Cluster, LimitedToken, Node
from swarm.model.plan import Create, Op, Update
from swarm.model.specs import NodeSpec
from swarm.model.types import Availability, NodeRole
from swarm.proto.identity import Identity
from swarm.store.store import Store

BODY_LIMIT_BYTES = 64 * 1024
WRONG_TOKENS = 10
WRONG_TOKENS_WINDOW_S = 60.0
TRIES = 50
RACE_S = 0.02
"""Before a write that lost a race is tried again: time for the mirror to show who won."""
ADDRESSES = 10_000
"""Most addresses whose wrong tokens are remembered."""

log = get_logger("join")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    token: str
    csr_pem: bytes
    availability: Availability
    address: str
    """Where the host would serve as a manager."""


class Throttle:
    """Counts wrong tokens by address; pure but for the times it is given."""

    def __init__(self) -> None:
        self._wrong: dict[str, deque[float]] = {}

    def is_blocked(self, address: str, now: float) -> bool:
        recent = self._wrong.get(address, deque())
        while recent and now - recent[0] > WRONG_TOKENS_WINDOW_S:
            recent.popleft()
        return len(recent) >= WRONG_TOKENS

    def wrong(self, address: str, now: float) -> None:
        if len(self._wrong) >= ADDRESSES:
            self._wrong.clear()
        self._wrong.setdefault(address, deque()).append(now)


class JoinServer:
    def __init__(self, store: Store, clock: Clock, refuse_damaged: Callable[[], None]) -> None:
        """`refuse_damaged` raises when what the store shows here is not to be believed."""
        self._refuse_damaged = refuse_damaged
        self._store = store
        self._clock = clock
        self._throttle = Throttle()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.router.add_get("/v1/root", self._root)
        app.router.add_post("/v1/join", self._join)
        return app

    async def _root(self, _: web.Request) -> web.Response:
        return web.Response(body=self._cluster().root_ca.ca_cert_pem, content_type="application/x-pem-file")

    async def _join(self, request: web.Request) -> web.Response:
        address = request.remote or ""
        try:
            if self._throttle.is_blocked(address, self._clock.monotonic()):
                raise Unavailable("too many wrong join tokens from this address: wait a minute")
            self._refuse_damaged()
            wanted = _read(await request.read())
            answer = await self._issue(wanted, address)
        except SwarmError as error:
            log.info("join.refused", address=address, reason=str(error))
            return web.json_response({"message": str(error)}, status=error.http_code)
        return web.json_response(answer)

    async def _issue(self, wanted: JoinRequest, address: str) -> dict[str, Any]:
        key = read_csr(wanted.csr_pem)
        for _ in range(TRIES):
            cluster = self._cluster()
            token = self._token(cluster, wanted.token, address)
            node_id = node_id_for(key, cluster.id)
            node = self._store.view.get(Node, node_id)
            if node is not None:
                _refuse_lesser(token, node)
            if node is not None and node_id in token.used_by:
                return self._certify(cluster, node, key)  # it asks again: its answer was lost
            admitted = use_token(cluster.root_ca, token, node_id, self._clock.now())
            if node is not None:
                return self._certify(cluster, node, key)
            if token.role is NodeRole.MANAGER:
                self._refuse_taken(wanted.address)
            spec = NodeSpec(role=token.role, availability=wanted.availability, labels=token.labels)
            ops: list[Op] = [Create(object=Node(id=node_id, spec=spec))]
            if admitted != cluster.root_ca:
                ops.append(Update(object=replace(cluster, root_ca=admitted)))
            try:
                await self._store.commit(ops)
            except (AlreadyExists, OutOfSequence):
                log.info("join.again", node_id=node_id)
                await asyncio.sleep(RACE_S)
            else:
                log.info("join.admitted", node_id=node_id, role=token.role, address=address, token=token.id)
        raise Unavailable("many hosts are joining at once: try again")

    def _certify(self, cluster: Cluster, node: Node, key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
        """The role is that of the record: a node that asks again does not change it by another token."""
        life = cluster.spec.node_cert_expiry
        grant = Grant(node_id=node.id, role=node.spec.role, cluster_id=cluster.id, life=life)
        certificate = sign(issuing(cluster.root_ca, node.spec.role), key, grant, self._clock.now())
        failpoint("join.reply")
        return {
            "node_id": node.id,
            "certificate": certificate.decode(),
            "roots": trusted_pem(cluster.root_ca).decode(),
        }

    def _token(self, cluster: Cluster, text: str, address: str) -> LimitedToken:
        try:
            token = find_token(cluster.root_ca, parse_token(text).secret)
        except InvalidArgument:
            token = None
        if token is None:
            raise self._wrong_token(address)
        return token

    def _refuse_taken(self, address: str) -> None:
        """A manager whose disk was wiped is a new node: its old member of the store has to go first."""
        for node in self._store.view.list(Node):
            if node.manager_status is not None and node.manager_status.addr.rpartition(":")[0] == address:
                raise FailedPrecondition(
                    f"node {node.id} is a manager at {address} already: if this host's state was lost, take "
                    f"its old one out first: swarm node demote {node.id} && swarm node rm --force {node.id}"
                )

    def _wrong_token(self, address: str) -> InvalidArgument:
        self._throttle.wrong(address, self._clock.monotonic())
        return InvalidArgument("A valid join token is necessary to join this cluster")

    def _cluster(self) -> Cluster:
        clusters = self._store.view.list(Cluster)
        if not clusters:
            raise Unavailable("the cluster is not ready yet; try again")
        return clusters[0]


def _refuse_lesser(token: LimitedToken, node: Node) -> None:
    """A stolen key of a manager opens no more than the token that goes with it."""
    if node.spec.role is NodeRole.MANAGER and token.role is not NodeRole.MANAGER:
        raise InvalidArgument(
            f"node {node.id} is a manager, which a worker's token does not let in: take the one that "
            "`swarm join-token manager` prints"
        )


def tls_context(identity: Identity) -> ssl.SSLContext:
    """Server side of port 2377: our node certificate, nothing asked of the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load_certificate(context, identity)
    return context


def load_certificate(context: ssl.SSLContext, identity: Identity) -> None:
    """Have connections that are opened from now on see this certificate."""
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        cert, key = Path(directory, "cert"), Path(directory, "key")
        cert.write_bytes(identity.cert_pem)
        key.touch(mode=0o600)
        key.write_bytes(identity.key_pem)
        context.load_cert_chain(cert, key)


def _read(content: bytes) -> JoinRequest:
    try:
        body = json.loads(content)
        return JoinRequest(
            token=str(body["token"]),
            csr_pem=str(body["csr"]).encode(),
            availability=Availability(body.get("availability") or Availability.ACTIVE),
            address=str(body.get("address", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument("malformed join request") from None
