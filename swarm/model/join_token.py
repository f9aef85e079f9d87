"""The token that lets a host join: `SWMTKN-1-<digest of the root CA>-<secret>`, as SwarmKit makes it.

The digest (SHA-256 of the root certificate's DER, 50 characters of base 36) lets the joiner check whom it is
talking to before it shows the secret; the secret (25 characters) tells the role.
Source: SwarmKit ca/config.go.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from swarm.base.errors import InvalidArgument
from swarm.base.ids import ID_LENGTH, base36

DIGEST_LENGTH = 50
_FORM = re.compile(rf"SWMTKN-1-([0-9a-z]{{{DIGEST_LENGTH}}})-([0-9a-z]{{{ID_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    root_digest: str
    secret: str

    def __str__(self) -> str:
        return f"SWMTKN-1-{self.root_digest}-{self.secret}"

    def __repr__(self) -> str:
        return f"SWMTKN-1-{self.root_digest}-***"


def root_digest(root_der: bytes) -> str:
    return base36(int.from_bytes(hashlib.sha256(root_der).digest(), "big"), DIGEST_LENGTH)


def parse_token(text: str) -> JoinToken:
    """Raises: InvalidArgument, without repeating the token."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument("invalid join token: it should read SWMTKN-1-<50 characters>-<25 characters>")
    return JoinToken(match[1], match[2])
