"""Serves port 2377 with a certificate of the root that join tokens name.

While the cluster moves to another root the node's own certificate may be of the new one, which a joiner with
a token does not know yet. Managers hold the old root's key until the end: each signs for this port itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.manager.ca.join_server import JoinServer, load_certificate, tls_context
from swarm.manager.ca.root import Grant, read_csr, sign
from swarm.model.objects import Cluster
from swarm.model.types import NodeRole
from swarm.proto.identity import Identity, make_csr
from swarm.store.store import Store

LOOK_EVERY_S = 60.0

log = get_logger("join")


class JoinSite:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        identity: Callable[[], Identity],
        refuse_damaged: Callable[[], None],
    ) -> None:
        self._refuse_damaged = refuse_damaged
        self._store = store
        self._clock = clock
        self._identity = identity

    async def run(self, address: str, port: int) -> None:
        """Until cancelled. Raises: FailedPrecondition when the port is taken."""
        served = self._certified()
        context = tls_context(served)
        server = JoinServer(self._store, self._clock, self._refuse_damaged)
        runner = web.AppRunner(server.application(), access_log=None)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, address, port, ssl_context=context).start()
            except OSError as error:
                raise FailedPrecondition(f"cannot listen on {address}:{port}: {error.strerror}") from error
            with self._store.changes(Cluster) as changes:
                while True:
                    try:
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await changes.wait()
                    except TimeoutError:
                        pass
                    if self._is_stale(served):
                        served = self._certified()
                        failpoint("authority.site.replaced")
                        load_certificate(context, served)
                        log.info("join.certificate", expires=str(served.subject.not_after))
        finally:
            await runner.cleanup()

    def _is_stale(self, served: Identity) -> bool:
        clusters = self._store.view.list(Cluster)
        if clusters and clusters[0].root_ca.ca_cert_pem != served.root_pem:
            return True
        subject = served.subject
        return self._clock.now() - subject.issued_at > subject.life / 2

    def _certified(self) -> Identity:
        """This node, as a manager, under the root that tokens name."""
        identity = self._identity()
        clusters = self._store.view.list(Cluster)
        if not clusters:
            return identity
        cluster = clusters[0]
        grant = Grant(
            node_id=identity.subject.node_id,
            role=NodeRole.MANAGER,
            cluster_id=cluster.id,
            life=cluster.spec.node_cert_expiry,
        )
        key = read_csr(make_csr(identity.key_pem))
        certificate = sign(cluster.root_ca, key, grant, self._clock.now())
        return replace(identity, cert_pem=certificate, root_pem=cluster.root_ca.ca_cert_pem)
