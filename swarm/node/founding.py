"""What a new cluster starts with, or one restored from a backup: CA, tokens, objects, the first manager.

And what the first manager needs of its host: addresses, free ports, an etcd.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import datetime

from swarm.api.backend import InitRequest
from swarm.base.errors import FailedPrecondition, InvalidArgument
from swarm.base.ids import ClusterID, IdSource, NetworkID
from swarm.manager.backup import Backup, certify_restorer, plan_restore
from swarm.manager.ca.root import Grant, create_root, node_id_for, read_csr, sign
from swarm.model.defaults import (
    CLUSTER_PORT,
    DATA_PATH_PORT,
    ENCRYPTION_PORTS,
    ETCD_CLIENT_PORT,
    ETCD_PEER_PORT,
)
from swarm.model.objects import Cluster, JoinTokens, ManagerStatus, Network, Node
from swarm.model.plan import Create
from swarm.model.specs import NetworkSpec, NodeSpec
from swarm.model.types import NodeRole
from swarm.node import addresses
from swarm.node.files import Membership
from swarm.node.manager_part import Seed
from swarm.proto.identity import Identity, make_csr, new_key
from swarm.secrets.unlock import new_unlock_key
from swarm.store.etcd_process import check_version

DEFAULT_POOL = "10.0.0.0/8"


@dataclass(frozen=True, slots=True)
class Foundation:
    identity: Identity
    seed: Seed
    unlock_key: str
    """What locks the founder's keys on its disk; empty for no lock."""


def found_cluster(request: InitRequest, join_address: str, now: datetime, new_id: IdSource) -> Foundation:
    """Everything to store at `swarm init`; `join_address` is this manager's host:port for joins.

    Raises: InvalidArgument for address pools or a port that cannot be used.
    """
    pools = check_pools(request.default_address_pools, request.subnet_size)
    root = create_root(now, JoinTokens(worker=new_id(), manager=new_id()))
    cluster_id = ClusterID(new_id())
    key_pem = new_key()
    key = read_csr(make_csr(key_pem))
    node_id = node_id_for(key, cluster_id)
    life = request.spec.node_cert_expiry
    grant = Grant(node_id=node_id, role=NodeRole.MANAGER, cluster_id=cluster_id, life=life)
    identity = Identity(key_pem=key_pem, cert_pem=sign(root, key, grant, now), root_pem=root.ca_cert_pem)
    # The lock stays open until somebody has the key: a founder that dies before it is shown is not lost.
    unlock_key = new_unlock_key() if request.spec.auto_lock_managers else ""
    cluster = Cluster(
        id=cluster_id,
        spec=request.spec,
        root_ca=root,
        next_unlock_key=unlock_key,
        data_path_port=check_data_path_port(request.data_path_port),
    )
    if pools:
        cluster = replace(
            cluster,
            default_address_pools=tuple(str(p) for p in pools),
            subnet_size=request.subnet_size or Cluster(id=cluster_id).subnet_size,
        )
    ingress = Network(id=NetworkID(new_id()), spec=NetworkSpec(name="ingress", ingress=True))
    node = Node(
        id=node_id,
        spec=NodeSpec(role=NodeRole.MANAGER, availability=request.availability),
        manager_status=ManagerStatus(addr=join_address),
    )
    objects = tuple(Create(object=o) for o in (cluster, ingress, node))
    return Foundation(identity, Seed(objects), "")


def found_again(backup: Backup, join_address: str, now: datetime) -> Foundation:
    """Everything to store at `swarm system restore`."""
    identity = certify_restorer(backup, now)
    objects = plan_restore(backup, identity, join_address, now)
    return Foundation(identity, Seed(objects, after_revision=backup.revision), backup.cluster.unlock_key)


def check_data_path_port(port: int) -> int:
    """The UDP port of the tunnels, 0 for the usual one; encrypted ones use the next."""
    if port == 0:
        return DATA_PATH_PORT
    if not 1024 <= port <= 49150 or {port, port + 1} & set(ENCRYPTION_PORTS):
        raise InvalidArgument(
            f"invalid data path port {port}: it must be from 1024 to 49150, "
            "and not 2382 to 2384, which encrypted networks need"
        )
    return port


def check_pools(pools: tuple[str, ...], subnet_size: int) -> list[ipaddress.IPv4Network]:
    """The address pools a user gave, none for the default. Raises: InvalidArgument."""
    checked: list[ipaddress.IPv4Network] = []
    for text in pools:
        try:
            pool = ipaddress.IPv4Network(text)
        except ValueError:
            raise InvalidArgument(
                f"invalid address pool {text}: it should be a network like 10.20.0.0/16"
            ) from None
        if any(pool.overlaps(other) for other in checked):
            raise InvalidArgument(f"address pool {text} overlaps with another one")
        if subnet_size and not pool.prefixlen <= subnet_size <= 29:
            raise InvalidArgument(
                f"invalid subnet size {subnet_size} for address pool {text}: "
                f"it must be from {pool.prefixlen} to 29"
            )
        checked.append(pool)
    return [] if checked == [ipaddress.IPv4Network(DEFAULT_POOL)] else checked


async def prepare_founder(request: InitRequest) -> Membership:
    """What the founder of a cluster is, once its addresses and ports have been found usable."""
    if request.external_store is None:
        await check_version()
    membership = await _founder(request)
    ports = (membership.join_port, CLUSTER_PORT)
    addresses.ensure_free(membership.listen_address, ports)
    if request.external_store is not None:
        return membership
    addresses.ensure_free(membership.advertise_address, (ETCD_PEER_PORT,))
    addresses.ensure_free("127.0.0.1", (ETCD_CLIENT_PORT,))
    return membership


async def _founder(request: InitRequest) -> Membership:
    local = await addresses.local_addresses()
    advertised, port = addresses.choose_advertised(request.advertise_addr, local)
    if advertised not in {a.address for a in local}:
        raise FailedPrecondition(f"advertise address {advertised} is not an address of this host")
    return Membership(
        role=NodeRole.MANAGER,
        advertise_address=advertised,
        data_path_address=await choose_data_path(request.data_path_addr, advertised),
        listen_address=addresses.choose_listen(request.listen_addr),
        join_port=port,
        managers=(f"{advertised}:{CLUSTER_PORT}",),
    )


async def choose_data_path(wanted: str, advertised: str) -> str:
    """The address that tasks' traffic uses: the advertised one unless another is wanted."""
    if not wanted:
        return advertised
    return addresses.choose_advertised(wanted, await addresses.local_addresses())[0]
