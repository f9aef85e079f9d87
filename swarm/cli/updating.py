"""Updates of what was read before: sent anew while managers write what is not the user's, such as a state.

Invariant: nothing is sent on top of a spec that the user's change was not made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from swarm.api.client import ApiError, Client, JsonValue

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """An object of the API as it was read; its spec may be edited in place afterwards."""

    path: str
    spec: Mapping[str, Any]
    version: int

    @classmethod
    def of(cls, path: str, item: Mapping[str, Any]) -> Seen:
        """`path` is the object's own."""
        return cls(path, deepcopy(item["Spec"]), item["Version"]["Index"])

    def update(
        self, client: Client, body: JsonValue, headers: Mapping[str, str] | None = None, **query: object
    ) -> JsonValue:
        """Raises: ApiError, also when somebody else has changed the spec meanwhile."""
        version = self.version
        for tries_left in reversed(range(_TRIES)):
            try:
                return client.post(
                    f"{self.path}/update", body, headers=dict(headers or {}), version=version, **query
                )
            except ApiError as error:
                if not tries_left or not error.message.endswith("update out of sequence"):
                    raise
                found = client.get(self.path)
                if found["Spec"] != self.spec:
                    raise
                version = found["Version"]["Index"]
        raise AssertionError("the last try returns or raises")
