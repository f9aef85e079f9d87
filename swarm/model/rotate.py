"""What users ask of a cluster's secrets: fresh ones in place of the old, and join tokens with limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from swarm.model.types import NodeRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A root certificate of the user's and its key, as given."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate:
    worker_token: bool = False
    manager_token: bool = False
    unlock_key: bool = False
    authority: Authority | None = None
    """The root to move to; a raised `force_rotate` of the spec asks for one of our own making."""


NOTHING = Rotate()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A join token that ends: after a time, after some nodes, or when it is removed."""

    role: NodeRole
    ttl: timedelta | None = None
    uses: int = 0
    """0 for any number of nodes."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """For the nodes that it lets in."""
