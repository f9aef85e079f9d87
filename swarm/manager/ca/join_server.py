"""Port 2377: what a host without a certificate may ask. HTTPS, two questions.

`GET /v1/root` gives the root certificate, which the joiner checks against its token's digest before it says
anything; `POST /v1/join {"token", "csr"}` gives a node certificate for a valid token. The same key asks twice
and gets the same node. Wrong tokens are compared in constant time and limited per address.
"""

from __future__ import annotations

import hmac
import json
import ssl
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from swarm.base.clock import Clock
from swarm.base.errors import AlreadyExists, InvalidArgument, SwarmError, Unavailable
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.manager.ca.root import Grant, node_id_for, read_csr, sign
from swarm.model.join_token import parse_token
from swarm.model.objects import Cluster, Node
from swarm.model.plan import Create
from swarm.model.specs import NodeSpec
from swarm.model.types import Availability, NodeRole
from swarm.proto.identity import Identity
from swarm.store.store import Store

BODY_LIMIT_BYTES = 64 * 1024
WRONG_TOKENS = 10
WRONG_TOKENS_WINDOW_S = 60.0
ADDRESSES = 10_000
"""Most addresses whose wrong tokens are remembered."""

log = get_logger("join")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    token: str
    csr_pem: bytes
    availability: Availability


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
    def __init__(self, store: Store, clock: Clock) -> None:
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
            wanted = _read(await request.read())
            answer = await self._issue(wanted, address)
        except SwarmError as error:
            log.info("join.refused", address=address, reason=str(error))
            return web.json_response({"message": str(error)}, status=error.http_code)
        return web.json_response(answer)

    async def _issue(self, wanted: JoinRequest, address: str) -> dict[str, Any]:
        cluster = self._cluster()
        role = self._role(cluster, wanted.token, address)
        key = read_csr(wanted.csr_pem)
        node_id = node_id_for(key, cluster.id)
        node = Node(id=node_id, spec=NodeSpec(role=role, availability=wanted.availability))
        known = self._store.view.get(Node, node_id)
        if known is None:
            try:
                await self._store.commit([Create(object=node)])
            except AlreadyExists:
                log.info("join.replayed", node_id=node_id)
        grant = Grant(node_id=node_id, role=role, cluster_id=cluster.id, life=cluster.spec.node_cert_expiry)
        certificate = sign(cluster.root_ca, key, grant, self._clock.now())
        failpoint("join.reply")
        log.info("join.issued", node_id=node_id, role=role, address=address)
        return {"node_id": node_id, "certificate": certificate.decode()}

    def _role(self, cluster: Cluster, token: str, address: str) -> NodeRole:
        tokens = cluster.root_ca.join_tokens
        try:
            secret = parse_token(token).secret
        except InvalidArgument:
            raise self._wrong_token(address) from None
        is_worker = hmac.compare_digest(secret, tokens.worker)
        is_manager = hmac.compare_digest(secret, tokens.manager)
        if is_worker:
            return NodeRole.WORKER
        if is_manager:
            return NodeRole.MANAGER
        raise self._wrong_token(address)

    def _wrong_token(self, address: str) -> InvalidArgument:
        self._throttle.wrong(address, self._clock.monotonic())
        return InvalidArgument("A valid join token is necessary to join this cluster")

    def _cluster(self) -> Cluster:
        clusters = self._store.view.list(Cluster)
        if not clusters:
            raise Unavailable("the cluster is not ready yet; try again")
        return clusters[0]


def tls_context(identity: Identity) -> ssl.SSLContext:
    """Server side of port 2377: our node certificate, nothing asked of the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        cert, key = Path(directory, "cert"), Path(directory, "key")
        cert.write_bytes(identity.cert_pem)
        key.touch(mode=0o600)
        key.write_bytes(identity.key_pem)
        context.load_cert_chain(cert, key)
    return context


def _read(content: bytes) -> JoinRequest:
    try:
        body = json.loads(content)
        return JoinRequest(
            token=str(body["token"]),
            csr_pem=str(body["csr"]).encode(),
            availability=Availability(body.get("availability") or Availability.ACTIVE),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument("malformed join request") from None
