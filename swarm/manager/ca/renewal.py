"""New certificates for nodes that have one: identity from the connection, role from the store."""

from __future__ import annotations

from swarm.base.clock import Clock
from swarm.base.errors import PermissionDenied, Unavailable
from swarm.manager.ca.root import Grant, node_id_for, read_csr, sign
from swarm.model.objects import Cluster, Node
from swarm.proto.gen import ca_pb2 as pb
from swarm.proto.gen import ca_pb2_grpc
from swarm.proto.rpc import Context, caller
from swarm.store.store import Store


class NodeCA(ca_pb2_grpc.NodeCAServicer):
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def RenewNodeCertificate(
        self, request: pb.RenewNodeCertificateRequest, context: Context
    ) -> pb.RenewNodeCertificateResponse:
        node = self._store.view.get(Node, caller().node_id)
        clusters = self._store.view.list(Cluster)
        if node is None:
            raise PermissionDenied(f"node {caller().node_id} has been removed from the cluster")
        if not clusters:
            raise Unavailable("the cluster is not ready yet; try again")
        cluster = clusters[0]
        grant = Grant(
            node_id=node.id, role=node.spec.role, cluster_id=cluster.id, life=cluster.spec.node_cert_expiry
        )
        key = read_csr(request.csr_pem)
        if node_id_for(key, cluster.id) != node.id:
            raise PermissionDenied("a node renews its certificate with the key it joined with")
        return pb.RenewNodeCertificateResponse(
            certificate_pem=sign(cluster.root_ca, key, grant, self._clock.now()),
            root_pem=cluster.root_ca.ca_cert_pem,
        )
