"""Events as the API tells them: which of them a client asks for, and their JSON. Pure.

Values of one filter are alternatives, filters are conditions. `service` and `node` also find the tasks of
that service and on that node; names and ids match by their beginnings.
Source: moby daemon/events/filter.go.
"""

from __future__ import annotations

from swarm.api.filters import Filters, has_labels, is_one_of
from swarm.model.docker_json import Json
from swarm.model.events import Event

_SWARM_TYPES = frozenset({"service", "node", "network", "task", "cluster", "secret", "config"})
_OTHER_TYPES = frozenset({"container", "daemon", "image", "plugin", "volume"})
EVENT_FILTERS = _SWARM_TYPES | _OTHER_TYPES | {"event", "label", "scope", "type"}


def is_asked_for(event: Event, filters: Filters) -> bool:
    return (
        is_one_of(filters.get("type"), event.type)
        and is_one_of(filters.get("event"), event.action)
        and is_one_of(filters.get("scope"), "swarm")
        and has_labels(filters.get("label"), event.attributes)
        and all(_is_about(event, kind, filters[kind]) for kind in filters if kind in _SWARM_TYPES)
        and not any(kind in _OTHER_TYPES for kind in filters)
    )


def _is_about(event: Event, kind: str, wanted: tuple[str, ...]) -> bool:
    if event.type == kind:
        names = (event.id, event.attributes.get("name", ""))
    else:
        names = (event.attributes.get(f"{kind}.id", ""), event.attributes.get(f"{kind}.name", ""))
    return any(name.startswith(text) for text in wanted for name in names if name)


def event_json(event: Event) -> Json:
    """Docker's message; `revision` is ours: what to send as `after` to go on from here."""
    seconds = int(event.time.timestamp())
    return {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attributes)},
        "scope": "swarm",
        "time": seconds,
        "timeNano": seconds * 1_000_000_000 + event.time.microsecond * 1000,
        "revision": str(event.position),
    }
