"""Several compose files, or a service and what it extends, as one. Pure.

In: sections as `read_project` gives them, the later one's tags. Out: one of them. Maps are merged key by key,
lists are joined, the later value wins; what lists hold only once is told by a key (a mount's target, a port).
Source: Compose Specification, chapter Merge; `docker stack deploy` with several files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarm.stack.readers import Path

Json = dict[str, Any]
_REPLACED = frozenset({("command",), ("entrypoint",), ("healthcheck", "test"), ("extends",)})


def _port_key(port: Json) -> object:
    published = port.get("published")
    return (published, port["protocol"]) if published else (None, port["protocol"], port["target"])


def _file_key(reference: Json) -> object:
    return reference.get("target") or reference["source"]


_KEYED: dict[Path, Callable[[Any], object]] = {
    ("ports",): _port_key,
    ("volumes",): lambda volume: volume["target"],
    ("secrets",): _file_key,
    ("configs",): _file_key,
    ("env_file",): lambda file: file["path"],
    ("devices",): lambda device: device.split(":")[0],
    ("deploy", "resources", "reservations", "generic_resources"): lambda item: item["discrete_resource_spec"][
        "kind"
    ],
}


def merge(base: Json, over: Json, tags: Mapping[Path, str], path: Path = ()) -> Json:
    """`over` laid over `base`; `!override` takes the place of what was, `!reset` takes it away."""
    found = {key: value for key, value in base.items() if tags.get((*path, key)) != "!reset"}
    for key, value in over.items():
        inner = (*path, key)
        if tags.get(inner) == "!reset":
            continue
        is_kept = key in found and tags.get(inner) != "!override"
        found[key] = _merged(found[key] if is_kept else None, value, tags, inner)
    return found


def _merged(base: object, over: object, tags: Mapping[Path, str], path: Path) -> object:
    rule = path[2:] if path[0] == "services" else ()
    if isinstance(over, dict):
        is_other_driver = rule == ("logging",) and isinstance(base, dict) and _is_other(base, over)
        return merge(base if isinstance(base, dict) and not is_other_driver else {}, over, tags, path)
    if not isinstance(over, list) or not isinstance(base, list) or rule in _REPLACED:
        return over
    return _joined(base, over, _KEYED.get(rule, _itself))


def _is_other(base: Json, over: Json) -> bool:
    return "driver" in base and "driver" in over and base["driver"] != over["driver"]


def _itself(item: object) -> object:
    return repr(item)


def _joined(base: list[Any], over: list[Any], key: Callable[[Any], object]) -> list[Any]:
    found = {key(item): item for item in base}
    return list((found | {key(item): item for item in over}).values())
