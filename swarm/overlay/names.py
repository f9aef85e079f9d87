"""What this host's name server must know, and how it differs from what it was told. Pure.

In: the desired state, the records of this host's tasks. Out: items by key, plain enough for JSON; changes.

Invariant: a task is told of only when all that its names need can be told: so it never gets a false "no".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from swarm.model.dataplane import DataPlane, NetworkService
from swarm.overlay.records import TaskRecord

Item = Mapping[str, Any]

RESOLVER = "127.0.0.11"
"""Where a task finds the name server: in its own network namespace, on its loopback."""
RESOLVER_PORT = 52
"""Where the server really listens: port 53 stays free for a task that is a name server itself. Below 1024
no client's socket ever gets in the way."""


def plan_names(
    desired: DataPlane, records: Iterable[TaskRecord], namespace: Callable[[str], Path]
) -> dict[str, Item]:
    """`namespace` tells where a task's network namespace is found."""
    networks = {network.id: network for network in desired.networks}
    tasks = {r.task_id: r for r in records if r.names_on and networks.keys() >= set(r.names_on)}
    near = {network_id for record in tasks.values() for network_id in record.names_on}
    items: dict[str, Item] = {
        f"network/{network_id}": {
            "name": networks[network_id].name,
            "subnets": list(networks[network_id].all_subnets),
        }
        for network_id in sorted(near)
    }
    for service in desired.services:
        if service.network_id in near:
            items[f"service/{service.network_id}/{service.service_id}"] = _service(service)
    for task_id, record in tasks.items():
        is_internal = all(networks[network_id].internal for network_id in record.names_on)
        items[f"task/{task_id}"] = {
            "netns": str(namespace(task_id)),
            "networks": list(record.names_on),
            "forward_to": [] if is_internal else list(record.nameservers),
        }
    return items


def has_tasks(items: Mapping[str, Item]) -> bool:
    return any(key.startswith("task/") for key in items)


def difference(told: Mapping[str, Item], now: Mapping[str, Item]) -> tuple[dict[str, Item], list[str]]:
    """What to set, and the keys to forget."""
    return {k: item for k, item in now.items() if told.get(k) != item}, [k for k in told if k not in now]


def render_resolver() -> str:
    """The rules of a task's namespace: what is sent to the resolver reaches the server's own port."""
    lines = ["add table ip swarm", "delete table ip swarm", "table ip swarm {", "  chain output {"]
    lines.append("    type nat hook output priority -100; policy accept;")
    lines += [
        f"    ip daddr {RESOLVER} {protocol} dport 53 dnat to {RESOLVER}:{RESOLVER_PORT}"
        for protocol in ("udp", "tcp")
    ]
    return "\n".join([*lines, "  }", "}", ""])


def _service(service: NetworkService) -> Item:
    return {
        "name": service.name,
        "virtual_ip": service.virtual_ip,
        "aliases": list(service.aliases),
        "backends": [[b.address, b.suspect, list(b.names)] for b in service.backends],
    }
