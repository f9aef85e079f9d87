"""Which join token lets in whom. Pure.

Two tokens last until they are replaced, one for workers and one for managers. Others are limited: they end at
a time or after a number of nodes, and may carry labels for the nodes they let in. A joiner cannot choose its
labels itself: tasks are placed by them.

Invariant: a node counts once against its token, however often its request is repeated.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from datetime import datetime, timedelta

from swarm.base.errors import InvalidArgument, NotFound
from swarm.base.ids import IdSource, NodeID
from swarm.model.objects import LimitedToken, RootCA
from swarm.model.rotate import TokenRequest
from swarm.model.types import NodeRole
from swarm.model.validation import validate_labels

TOKENS_LIMIT = 100
"""Limited tokens kept at once: they share one stored object."""
USES_LIMIT = 1000


def find_token(root_ca: RootCA, secret: str) -> LimitedToken | None:
    """The token with this secret; a lasting one looks like a limited one without limits or id."""
    lasting = root_ca.join_tokens
    every = (
        LimitedToken(secret=lasting.worker, role=NodeRole.WORKER),
        LimitedToken(secret=lasting.manager, role=NodeRole.MANAGER),
        *root_ca.limited_tokens,
    )
    # All are compared, in constant time each, so that the time tells nothing.
    matching = [token for token in every if hmac.compare_digest(secret, token.secret)]
    return matching[0] if matching else None


def use_token(root_ca: RootCA, token: LimitedToken, node_id: NodeID, now: datetime) -> RootCA:
    """With the node counted against the token.

    Raises InvalidArgument when it has ended.
    """
    if not token.id:
        return root_ca
    if token.expires_at is not None and token.expires_at <= now:
        raise InvalidArgument(
            f"the join token expired at {token.expires_at:%Y-%m-%d %H:%M:%S} UTC: "
            "ask a manager for another one"
        )
    if token.uses and len(token.used_by) >= token.uses:
        times = "once" if token.uses == 1 else f"{token.uses} times"
        raise InvalidArgument(
            f"the join token could be used {times} and has been: ask a manager for another one"
        )
    used = replace(token, used_by=(*token.used_by, node_id))
    tokens = tuple(used if t.id == token.id else t for t in root_ca.limited_tokens)
    return replace(root_ca, limited_tokens=tokens)


def add_token(root_ca: RootCA, request: TokenRequest, new_secret: IdSource, now: datetime) -> RootCA:
    """With a new limited token, the last; of those that have ended the oldest make room.

    Raises: InvalidArgument.
    """
    if request.ttl is not None and request.ttl <= timedelta(0):
        raise InvalidArgument("invalid time to live of a join token: it must be positive")
    if not 0 <= request.uses <= USES_LIMIT:
        raise InvalidArgument(f"invalid uses of a join token: it must be from 1 to {USES_LIMIT}")
    validate_labels(request.labels)
    kept = list(root_ca.limited_tokens)
    for token in root_ca.limited_tokens:
        if len(kept) >= TOKENS_LIMIT and has_ended(token, now):
            kept.remove(token)
    if len(kept) >= TOKENS_LIMIT:
        raise InvalidArgument(
            f"there are {TOKENS_LIMIT} limited join tokens: remove some with swarm join-token rm"
        )
    made = LimitedToken(
        id=new_secret(),
        secret=new_secret(),
        role=request.role,
        expires_at=now + request.ttl if request.ttl is not None else None,
        uses=request.uses,
        labels=request.labels,
    )
    return replace(root_ca, limited_tokens=(*kept, made))


def remove_token(root_ca: RootCA, token_id: str) -> RootCA:
    """Without that limited token. Raises: NotFound."""
    kept = tuple(token for token in root_ca.limited_tokens if token.id != token_id)
    if len(kept) == len(root_ca.limited_tokens):
        raise NotFound("join token", token_id)
    return replace(root_ca, limited_tokens=kept)


def has_ended(token: LimitedToken, now: datetime) -> bool:
    expired = token.expires_at is not None and token.expires_at <= now
    return expired or bool(token.uses and len(token.used_by) >= token.uses)
