"""What the name server was told, folded from changes, and the view of each task that follows. Pure.

In: changes, as `swarm.overlay.names` writes them. Out: views.

Invariant: a view is never older than the last change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarm.model.dataplane import NetworkService, ServiceBackend
from swarm.overlay.dns.answers import NetworkNames, View, network_names

Item = Mapping[str, Any]


@dataclass(slots=True)
class NameState:
    """Keys are `network/<id>`, `service/<network id>/<service id>` and `task/<id>`."""

    _networks: dict[str, Item] = field(default_factory=dict)
    _services: dict[str, dict[str, NetworkService]] = field(default_factory=dict)
    """By network and key."""
    _tasks: dict[str, Item] = field(default_factory=dict)
    _names: dict[str, NetworkNames] = field(default_factory=dict)

    def change(self, updates: Mapping[str, Item], removals: Sequence[str]) -> None:
        for key in removals:
            kind, _, rest = key.partition("/")
            if kind == "network":
                self._networks.pop(rest, None)
            elif kind == "task":
                self._tasks.pop(rest, None)
            else:
                self._services.get(rest.partition("/")[0], {}).pop(key, None)
            self._names.pop(rest.partition("/")[0], None)
        for key, item in updates.items():
            kind, _, rest = key.partition("/")
            if kind == "network":
                self._networks[rest] = item
            elif kind == "task":
                self._tasks[rest] = item
            else:
                self._services.setdefault(rest.partition("/")[0], {})[key] = _service(item)
            self._names.pop(rest.partition("/")[0], None)

    def tasks(self) -> dict[str, str]:
        """Task to the path of its network namespace."""
        return {task_id: task["netns"] for task_id, task in self._tasks.items()}

    def view(self, task_id: str) -> View:
        task = self._tasks[task_id]
        networks = tuple(self._names_on(each) for each in task["networks"] if each in self._networks)
        return View(networks=networks, forwards=bool(task["forward_to"]))

    def forward_to(self, task_id: str) -> tuple[str, ...]:
        return tuple(self._tasks[task_id]["forward_to"])

    def _names_on(self, network_id: str) -> NetworkNames:
        if network_id not in self._names:
            network = self._networks[network_id]
            services = sorted(self._services.get(network_id, {}).items())
            self._names[network_id] = network_names(
                network["name"], network["subnets"], (service for _, service in services)
            )
        return self._names[network_id]


def _service(item: Item) -> NetworkService:
    return NetworkService(
        name=item["name"],
        virtual_ip=item["virtual_ip"],
        aliases=tuple(item["aliases"]),
        backends=tuple(
            ServiceBackend(address=address, suspect=suspect, names=tuple(names))
            for address, suspect, names in item["backends"]
        ),
    )
