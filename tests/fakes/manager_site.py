"""A real manager that decides nothing, with its servers on loopback, over a store in memory."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from swarm.api.backend import InitRequest
from swarm.base.clock import SystemClock
from swarm.base.ids import new_id
from swarm.manager.ca.root import Grant, node_id_for, read_csr, sign, token_text
from swarm.manager.manager import Listen, Manager, ManagerParts
from swarm.manager.members import Secrets
from swarm.model.join_token import JoinToken, parse_token
from swarm.model.objects import Cluster, Node
from swarm.model.plan import Create
from swarm.model.specs import NodeSpec
from swarm.model.types import NodeRole
from swarm.node.founding import found_cluster
from swarm.proto.identity import Identity, make_csr, new_key
from swarm.secrets.box import new_data_key
from swarm.secrets.keyring import Keyring
from swarm.store.store import Store
from tests.fakes.memory_cluster import memory_store

CLOCK = SystemClock()


class Undecided(Manager):
    """It leads, and leaves what a test has stored as it is."""

    def _planners(self):
        return ()


@dataclass
class Site:
    """A cluster of one manager, served on loopback."""

    parts: ManagerParts
    manager: Manager
    join: str
    target: str
    running: asyncio.Future[None]
    held: list[Identity]
    """The manager's own identity, to be replaced."""

    @property
    def store(self) -> Store:
        return self.parts.store

    @property
    def identity(self) -> Identity:
        return self.parts.identity()

    async def stop(self) -> None:
        """Stop the manager; the store stays."""
        self.running.cancel()
        await asyncio.wait({self.running})

    @property
    def cluster(self) -> Cluster:
        return self.store.view.list(Cluster)[0]

    def token(self, kind: str = "worker") -> JoinToken:
        root = self.cluster.root_ca
        return parse_token(token_text(root, getattr(root.join_tokens, kind)))

    def certify(self, role=NodeRole.WORKER, *, life=timedelta(days=1), root=None, cluster_id=None, age=None):
        """An identity under this cluster's root; its node is not in the store."""
        root = root or self.cluster.root_ca
        key_pem = new_key()
        key = read_csr(make_csr(key_pem))
        cluster_id = cluster_id or self.cluster.id
        grant = Grant(node_id=node_id_for(key, cluster_id), role=role, cluster_id=cluster_id, life=life)
        cert = sign(root, key, grant, CLOCK.now() - (age or timedelta()))
        return Identity(key_pem=key_pem, cert_pem=cert, root_pem=root.ca_cert_pem)

    async def member(self, role=NodeRole.WORKER) -> Identity:
        identity = self.certify(role)
        await self.store.commit([Create(object=Node(id=identity.subject.node_id, spec=NodeSpec(role=role)))])
        return identity


@asynccontextmanager
async def site():
    ring = Keyring([new_data_key()])
    async with memory_store(CLOCK, ring=ring) as store:
        ports = free_ports(2)
        join = f"127.0.0.1:{ports[0]}"
        foundation = found_cluster(InitRequest(), join, CLOCK.now(), new_id)
        await store.commit(foundation.seed.ops)
        held = [foundation.identity]
        listen = Listen(address="127.0.0.1", join_port=ports[0], cluster_port=ports[1])
        parts = ManagerParts(
            store=store,
            member=None,
            secrets=Secrets(ring=ring, store_ca=None),
            save_data_keys=lambda _: None,
            clock=CLOCK,
            new_id=new_id,
            identity=lambda: held[0],
            listen=listen,
        )
        manager = Undecided(parts)
        running = asyncio.ensure_future(manager.run())
        await manager.serving()
        made = Site(parts, manager, join, f"127.0.0.1:{ports[1]}", running, held)
        try:
            yield made
        finally:
            await made.stop()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for opened in sockets:
        opened.close()
    return ports
