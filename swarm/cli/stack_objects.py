"""What belongs to a stack, as the API lists it: everything that carries the label of its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.api.client import Client
from swarm.base.errors import InvalidArgument

Json = dict[str, Any]

NAMESPACE = "com.docker.stack.namespace"
_BLANK = " \t\n\r\v\f'\""


def named_stack(name: str) -> dict[str, list[str]]:
    """The filter for a stack's objects.

    Raises:
        InvalidArgument: no name.
    """
    if not name.strip(_BLANK):
        raise InvalidArgument(f'invalid stack name: "{name}"')
    return {"label": [f"{NAMESPACE}={name}"]}


def labels_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    """Networks have theirs at the top, everything else in its spec."""
    return item.get("Labels") or (item.get("Spec") or {}).get("Labels") or {}


def id_of(item: Mapping[str, Any]) -> str:
    return str(item.get("ID") or item["Id"])


def name_of(item: Mapping[str, Any]) -> str:
    return str(item.get("Name") or item["Spec"]["Name"])


def list_stacks(client: Client) -> dict[str, int]:
    """The stacks and how many services each has."""
    found: dict[str, int] = {}
    for service in client.get("/services", filters={"label": [NAMESPACE]}):
        name = labels_of(service)[NAMESPACE]
        found[name] = found.get(name, 0) + 1
    return found
