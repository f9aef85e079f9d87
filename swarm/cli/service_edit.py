"""What a service flag does to a service's spec: JSON of the API in, changed in place. Pure.

Every flag of `service create` and `service update` is one of the edits here, as `swarm.cli.service_flags`
lists them: `create` is an update of an empty spec. An edit gets the flag's value (None when it was not given)
and, for lists, the keys to remove; what is removed goes before what is added comes.

Invariant: what was not asked for is left as it is, in its order, so that an update restarts nothing by
accident.
Source: docker/cli's behaviour on `service update`, compared with it by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from swarm.base.errors import InvalidArgument
from swarm.model.port_options import VALUES

Json = dict[str, Any]
Edit = Callable[[Json, Any, Sequence[Any]], None]
KeyOf = Callable[[Any], object]

CONTAINER = ("TaskTemplate", "ContainerSpec")
RESOURCES = ("TaskTemplate", "Resources")
PLACEMENT = ("TaskTemplate", "Placement")
RESTART: Json = {"Condition": "any", "Delay": 5_000_000_000, "MaxAttempts": 0}
UPDATE: Json = {
    "Parallelism": 1,
    "FailureAction": "pause",
    "Monitor": 5_000_000_000,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}


def section(spec: Json, path: Sequence[str], defaults: Json | None = None) -> Json:
    """The object at `path`, made where there is none (with `defaults` in it)."""
    for key in path:
        if not spec.get(key):
            spec[key] = deepcopy(defaults or {}) if key == path[-1] else {}
        spec = spec[key]
    return spec


def _put(spec: Json, path: Sequence[str], value: object) -> None:
    """Set it, or leave it out where it says nothing: sections that only it would need are not made."""
    if value:
        section(spec, path[:-1])[path[-1]] = value
        return
    for key in path[:-1]:
        spec = spec.get(key) or {}
    spec.pop(path[-1], None)


def value_at(*path: str) -> Edit:
    """One value; nothing (0, an empty text) takes it away."""

    def edit(spec: Json, value: object, _: Sequence[object]) -> None:
        if value is not None:
            _put(spec, path, value)

    return edit


def setting_at(*path: str, defaults: Json | None = None) -> Edit:
    """One value whose 0 or false means something; a section that is new starts with `defaults`."""

    def edit(spec: Json, value: object, _: Sequence[object]) -> None:
        if value is not None:
            section(spec, path[:-1], defaults)[path[-1]] = value

    return edit


def items_at(*path: str, key_of: KeyOf = lambda item: item, last_wins: bool = True) -> Edit:
    """A list in which a new item takes the place of the one with its key.

    Of new ones that have one key the last counts, or, without `last_wins`, the manager has to refuse them.
    """

    def edit(spec: Json, added: Sequence[Any] | None, removed: Sequence[object]) -> None:
        if added is None and not removed:
            return
        kept = {
            key_of(item): item
            for item in _list_at(spec, path)
            if not any(_is(key_of, item, r) for r in removed)
        }
        fresh = {key_of(item): item for item in added or ()}
        kept |= fresh
        doubles = [] if last_wins else [item for item in added or () if item != fresh[key_of(item)]]
        _put(spec, path, [*kept.values(), *doubles])

    return edit


def _is(key_of: KeyOf, item: object, removed: object) -> bool:
    return key_of(item) == removed or (callable(removed) and bool(removed(item)))


def _list_at(spec: Json, path: Sequence[str]) -> list[Any]:
    for key in path[:-1]:
        spec = spec.get(key) or {}
    return list(spec.get(path[-1]) or ())


def pairs_at(*path: str) -> Edit:
    """An object of texts: labels, sysctls."""

    def edit(spec: Json, added: Sequence[tuple[str, str]] | None, removed: Sequence[str]) -> None:
        if added is None and not removed:
            return
        pairs = section(spec, path)
        for key in removed:
            pairs.pop(key, None)
        pairs.update(added or ())
        if not pairs and path != ("Labels",):
            _put(spec, path, None)

    return edit


def option_label(*path: str, key: str) -> Edit:
    """An option of ours, which travels as a label; false and an empty text take it away."""

    def edit(spec: Json, value: object, _: Sequence[object]) -> None:
        if value is None:
            return
        text = "true" if value is True else ",".join(value) if isinstance(value, tuple) else str(value or "")
        pairs_at(*path)(spec, [(f"swarm.{key}", text)] if text else [], [f"swarm.{key}"])

    return edit


def same(spec: Json, value: object, _: Sequence[object]) -> None:
    """For flags that others look at."""


def env_key(item: str) -> str:
    return item.partition("=")[0]


def edit_hosts(spec: Json, added: Sequence[tuple[str, str]] | None, removed: Sequence[str]) -> None:
    """Lines `address name [name ...]`; a name goes wherever it is, or only from the address given with it."""
    if added is None and not removed:
        return
    lines = []
    for line in _list_at(spec, (*CONTAINER, "Hosts")):
        address, *names = line.split()
        names = [name for name in names if name not in removed and f"{name}:{address}" not in removed]
        lines += [" ".join((address, *names))] if names else []
    lines += [line for line in (f"{address} {name}" for name, address in added or ()) if line not in lines]
    _put(spec, (*CONTAINER, "Hosts"), lines)


def port_key(port: Json) -> object:
    """A port that says where it is published stands for that place."""
    published = port.get("PublishedPort", 0)
    return (published or ("target", port["TargetPort"], port.get("PublishMode")), port["Protocol"])


def edit_ports(spec: Json, added: Sequence[Json] | None, removed: Sequence[object]) -> None:
    """Ports, and with them what their labels say: a port that goes takes its options along."""
    plain = None if added is None else [{k: v for k, v in p.items() if k not in VALUES} for p in added]
    items_at("EndpointSpec", "Ports", key_of=port_key, last_wins=False)(spec, plain, removed)
    if added is None and not removed:
        return
    known = {_port_label(port, name) for port in _list_at(spec, ("EndpointSpec", "Ports")) for name in VALUES}
    labels = spec.get("Labels") or {}
    stale = [key for key in labels if key.startswith("swarm.port.") and _canonical(key) not in known]
    given = [(_port_label(port, name), port[name]) for port in added or () for name in VALUES if name in port]
    if stale or given:
        pairs_at("Labels")(spec, given, stale)


def _port_label(port: Json, option: str) -> str:
    return f"swarm.port.{port.get('PublishedPort', 0)}/{port['Protocol']}.{option}"


def _canonical(label: str) -> str:
    """With the protocol, which may be left out."""
    port, _, option = label.rpartition(".")
    return label if "/" in port else f"{port}/tcp.{option}"


def capability(name: str) -> str:
    name = name.strip().upper()
    return name if name in ("ALL", "RESET") or name.startswith("CAP_") else f"CAP_{name}"


def edit_capabilities(spec: Json, add: Sequence[str], drop: Sequence[str]) -> None:
    """What is added is no longer dropped, and the other way round; adding wins, `RESET` empties a list."""
    if not add and not drop:
        return
    container = section(spec, CONTAINER)
    added, dropped = set(container.get("CapabilityAdd") or ()), set(container.get("CapabilityDrop") or ())
    was_added, was_dropped = set(added), set(dropped)
    if "RESET" in add:
        added = set()
    if "RESET" in drop:
        dropped = set()
    to_add, to_drop = set(add) - {"RESET"}, set(drop) - {"RESET"} - set(add)
    undone = set() if "ALL" in to_drop else was_dropped
    added = (added - to_drop) | (to_add - undone)
    dropped = (dropped - to_add) | (to_drop - was_added)
    if "ALL" in added:
        added, dropped = {"ALL"}, dropped - {"ALL"}
    if "ALL" in dropped:
        dropped = {"ALL"}
    _put(spec, (*CONTAINER, "CapabilityAdd"), sorted(added))
    _put(spec, (*CONTAINER, "CapabilityDrop"), sorted(dropped))


HEALTH = {
    "health-interval": "Interval",
    "health-timeout": "Timeout",
    "health-start-period": "StartPeriod",
    "health-start-interval": "StartInterval",
    "health-retries": "Retries",
}


def edit_health(spec: Json, given: Mapping[str, Any]) -> None:
    changed = {key: given[name] for name, key in HEALTH.items() if name in given}
    if given.get("no-healthcheck"):
        if changed or "health-cmd" in given:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        section(spec, CONTAINER)["Healthcheck"] = {"Test": ["NONE"]}
        return
    was_off = (section(spec, CONTAINER).get("Healthcheck") or {}).get("Test") == ["NONE"]
    if not changed and "health-cmd" not in given and not (was_off and "no-healthcheck" in given):
        return
    health = section(spec, (*CONTAINER, "Healthcheck"))
    if was_off:
        del health["Test"]
    if "health-cmd" in given:
        health.pop("Test", None)
        if given["health-cmd"]:
            health["Test"] = ["CMD-SHELL", given["health-cmd"]]
    health |= changed
    _put(spec, (*CONTAINER, "Healthcheck"), {key: value for key, value in health.items() if value})


def edit_log_driver(spec: Json, driver: str | None, options: Sequence[tuple[str, str]]) -> None:
    """Another driver starts without options; options alone are added to those of the driver there is."""
    if driver is None and not options:
        return
    found = spec["TaskTemplate"].get("LogDriver") or {"Name": "json-file"}
    if driver is not None:
        found = {"Name": driver}
    merged = {**(found.get("Options") or {}), **dict(options)}
    _put(
        spec,
        ("TaskTemplate", "LogDriver"),
        found | ({"Options": merged} if merged else {}) if found["Name"] else None,
    )


_REPLICAS_ONLY = "replicas can only be used with replicated or replicated-job mode"
_JOBS_ONLY = "max-concurrent can only be used with replicated-job mode"


def new_mode(mode: str, given: Mapping[str, Any]) -> Json:
    """The mode of a new service. Raises InvalidArgument for numbers that it does not have."""
    replicas, concurrent = given.get("replicas"), given.get("max-concurrent")
    is_replicated = mode in ("replicated", "replicated-job")
    if mode not in ("replicated", "global", "replicated-job", "global-job"):
        raise InvalidArgument(
            f"Unknown mode: {mode}, only replicated, global, replicated-job and global-job supported"
        )
    if replicas is not None and not is_replicated:
        raise InvalidArgument(_REPLICAS_ONLY)
    if given.get("replicas-max-per-node") and not is_replicated:
        raise InvalidArgument("replicas-max-per-node can only be used with replicated or replicated-job mode")
    if concurrent is not None and mode != "replicated-job":
        raise InvalidArgument(_JOBS_ONLY)
    if mode.endswith("-job") and any(name.startswith(("update-", "rollback-")) for name in given):
        raise InvalidArgument("update and rollback configuration is not supported for jobs")
    match mode:
        case "replicated":
            return {"Replicated": {} if replicas is None else {"Replicas": replicas}}
        case "replicated-job":
            numbers = {
                "MaxConcurrent": replicas if concurrent is None else concurrent,
                "TotalCompletions": replicas,
            }
            return {"ReplicatedJob": {key: value for key, value in numbers.items() if value is not None}}
        case "global-job":
            return {"GlobalJob": {}}
        case _:
            return {"Global": {}}


def edit_replicas(mode: Json, given: Mapping[str, Any]) -> None:
    """Raises InvalidArgument where the mode has no such number."""
    replicas, concurrent = given.get("replicas"), given.get("max-concurrent")
    if replicas is not None:
        if "Replicated" in mode:
            mode["Replicated"] = {"Replicas": replicas}
        elif "ReplicatedJob" in mode:
            mode["ReplicatedJob"] |= {"TotalCompletions": replicas}
        else:
            raise InvalidArgument(_REPLICAS_ONLY)
    if concurrent is not None:
        if "ReplicatedJob" not in mode:
            raise InvalidArgument(_JOBS_ONLY)
        mode["ReplicatedJob"] |= {"MaxConcurrent": concurrent}
