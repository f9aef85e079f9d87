"""Registry logins as Docker's clients send them: the text of `X-Registry-Auth` in, a login out. Pure.

Invariant: no message of an error holds any of it.
"""

from __future__ import annotations

import base64
import json

from swarm.base.errors import InvalidArgument
from swarm.base.log import Secret
from swarm.worker.images.registry import RegistryAuth


def registry_login(text: str) -> RegistryAuth | None:
    """None when there is no login in it. Raises: InvalidArgument."""
    if not text:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        fields = {key.lower(): str(value) for key, value in found.items()}
        username, password = fields.get("username", ""), fields.get("password", "")
        if not username and fields.get("auth"):
            username, _, password = base64.b64decode(fields["auth"]).decode().partition(":")
    except (ValueError, AttributeError, RecursionError):
        raise InvalidArgument("the service's registry login cannot be read: set it again") from None
    token = fields.get("identitytoken", "")
    if not username and not token:
        return None
    return RegistryAuth(
        username=username, password=Secret(password), identity_token=Secret(token) if token else None
    )
