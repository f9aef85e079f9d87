"""How a node whose certificate has ended is let in again: by a join token, as the node it was.

In: who it is, and what a `join` asks for. Out: a new certificate for the same key, and its membership.
Invariant: nothing is told to a manager of another swarm, and nothing but the certificate changes: a node that
is to have other addresses leaves and joins.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swarm.api.backend import JoinRequest
from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, InvalidArgument
from swarm.model.defaults import CLUSTER_PORT
from swarm.model.join_token import JoinToken, parse_token, root_digest
from swarm.node import addresses
from swarm.node.files import Membership
from swarm.node.joining import Application, request_identity
from swarm.proto.identity import Identity

_KEEPS = (
    "this node is in the swarm, only its certificate has expired: it keeps {present}; leave out {flag}, or "
    "leave with --force and join with it"
)


def has_expired(identity: Identity | None, now: datetime) -> bool:
    return identity is not None and identity.subject.not_after <= now


async def readmit(
    identity: Identity, membership: Membership, request: JoinRequest, remote: str, clock: Clock
) -> tuple[Identity, Membership]:
    """Ask the manager at `remote` (host:port). Raises: as `request_identity`; FailedPrecondition."""
    token = parse_token(request.token.reveal())
    _refuse_other_swarm(token, identity)
    await _refuse_other_addresses(request, membership)
    application = Application(
        token=token,
        key_pem=identity.key_pem,
        availability=request.availability,
        address=membership.advertise_address,
    )
    renewed = await request_identity(remote, application, clock)
    manager = f"{remote.rpartition(':')[0]}:{CLUSTER_PORT}"
    others = (known for known in membership.managers if known != manager)
    return renewed, replace(membership, managers=(manager, *others))


def _refuse_other_swarm(token: JoinToken, identity: Identity) -> None:
    """Its root would be one that this node does not trust."""
    roots = x509.load_pem_x509_certificates(identity.root_pem)
    digests = {root_digest(root.public_bytes(serialization.Encoding.DER)) for root in roots}
    if token.root_digest not in digests:
        raise InvalidArgument(
            "this node's certificate has expired, and the join token is not of the swarm that it is in, or "
            "of after its root CA was replaced: leave with --force, then join"
        )


async def _refuse_other_addresses(request: JoinRequest, membership: Membership) -> None:
    local = await addresses.local_addresses()
    listen = addresses.choose_listen(request.listen_addr)
    asked = {
        "--advertise-addr": (request.advertise_addr, membership.advertise_address),
        "--data-path-addr": (request.data_path_addr, membership.data_path_address),
    }
    for flag, (wanted, present) in asked.items():
        if wanted and addresses.choose_advertised(wanted, local)[0] != present:
            raise FailedPrecondition(_KEEPS.format(flag=flag, present=present))
    if listen not in (addresses.choose_listen(""), membership.listen_address):
        raise FailedPrecondition(_KEEPS.format(flag="--listen-addr", present=membership.listen_address))
