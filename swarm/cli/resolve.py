"""Ids in, names out, by asking the API once for each kind. An id whose object is gone stays an id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.api.client import ApiError, Client, JsonValue

Json = Mapping[str, Any]


def names_of_tasks(client: Client, tasks: Sequence[Json]) -> dict[str, str]:
    """Names of the services and nodes that `tasks` mention."""
    names: dict[str, str] = {}
    services = {task["ServiceID"] for task in tasks if task.get("ServiceID")}
    nodes = {task["NodeID"] for task in tasks if task.get("NodeID")}
    for id in services:
        found = find(client, f"/services/{id}")
        if found is not None:
            names[id] = found["Spec"]["Name"]
    if len(nodes) > 1:
        names |= {n["ID"]: node_name(n) for n in client.get("/nodes") if n["ID"] in nodes}
    else:
        for id in nodes:
            found = find(client, f"/nodes/{id}")
            if found is not None:
                names[id] = node_name(found)
    return names


def names_of_networks(client: Client, spec: Json) -> list[str]:
    """Of those that a service's spec mentions, in its order."""
    wanted = spec["TaskTemplate"].get("Networks") or spec.get("Networks") or ()
    found = [(item["Target"], find(client, f"/networks/{item['Target']}")) for item in wanted]
    return [network["Name"] if network is not None else target for target, network in found]


def slot_of(task: Json) -> int:
    """From 1, as in a task's name; 0 for a task of a node. The API counts a job's slots from 0, as Docker."""
    slot = task.get("Slot")
    return 0 if slot is None else int(slot) + ("JobIteration" in task)


def node_name(node: Json) -> str:
    name = (node.get("Spec") or {}).get("Name") or node["Description"].get("Hostname") or node["ID"]
    return str(name)


def find(client: Client, path: str) -> JsonValue:
    """The object at `path`, or None when there is none.

    Raises:
        ApiError: any other refusal.
    """
    try:
        return client.get(path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
