"""Whether an object of the cluster is as a stack wants it, and if not, in which fields. Pure.

In: bodies as they are posted and specs as the API lists them. Out: the names of the fields that differ;
values are shown for a few only, since environments and labels may hold what is nobody's business.
Invariant: a spec that was posted and then read back does not differ from itself: both sides go through the
model, which spells things one way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from swarm.model.docker_json import encode, read_service_spec, with_defaults

Json = dict[str, Any]

_PREFIXES = ("TaskTemplate.ContainerSpec.", "TaskTemplate.", "EndpointSpec.", "Mode.Replicated.")
_SHOWN = frozenset({"Image", "Replicas"})
_NETWORK_SETTINGS = ("Driver", "Internal", "Attachable", "Ingress", "EnableIPv6", "ConfigOnly")
_DIGEST_LENGTH = 12
CONTENT = "content"
"""Of a secret or config: the one change that makes a new version of it."""
_NOTHING: tuple[object, ...] = (None, "", 0, False, (), [], {})


def service_changes(wanted: Json, present: Json) -> tuple[str, ...]:
    """Fields in which two service specs differ; references must be filled in.

    Raises:
        InvalidArgument: `wanted` is no spec that this version takes.
    """
    before, after = dict(_leaves(_spelt_out(present))), dict(_leaves(_spelt_out(wanted)))
    paths = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return tuple(dict.fromkeys(_told(path, before.get(path), after.get(path)) for path in paths))


def _spelt_out(spec: Json) -> Json:
    found: Json = with_defaults({"Spec": encode(read_service_spec(spec))})["Spec"]
    return found


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - JSON
    """Lists are leaves: what of them changed is for their reader to see."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif value not in _NOTHING:
        yield path, value


def _told(path: tuple[str, ...], before: object, after: object) -> str:
    name = ".".join(path)
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    if name not in _SHOWN or before is None or after is None:
        return name
    return f"{name} {_shown(before)} -> {_shown(after)}"


def _shown(value: object) -> str:
    name, at, digest = str(value).partition("@sha256:")
    return f"{name}{at}{digest[:_DIGEST_LENGTH]}"


def network_changes(wanted: Json, present: Json) -> tuple[str, ...]:
    """Of what the stack says about a network; what it leaves open, the cluster chose."""
    found = [key for key in _NETWORK_SETTINGS if key in wanted and wanted[key] != present.get(key)]
    for key in ("Labels", "Options"):
        mine, theirs = wanted.get(key) or {}, present.get(key) or {}
        found += [f"{key}.{name}" for name in sorted(mine) if theirs.get(name) != mine[name]]
    families = [(_pools(wanted, mark), _pools(present, mark)) for mark in ".:"]
    if any(mine and mine != theirs for mine, theirs in families):
        found.append("IPAM")
    return tuple(found)


def _pools(network: Json, mark: str) -> list[str]:
    """The subnets with this mark, which tells the families apart: one that is not asked for is given."""
    subnets = (each.get("Subnet", "") for each in (network.get("IPAM") or {}).get("Config") or ())
    return sorted(str(ip_network(subnet)) for subnet in subnets if mark in subnet)


def content_changes(wanted: Json, spec: Json, *, is_other: bool = False) -> tuple[str, ...]:
    """Of a secret or config. A secret's content is not shown: whether it `is_other`, the manager says."""
    found = [CONTENT] if is_other or ("Data" in spec and spec["Data"] != wanted.get("Data")) else []
    drivers = ("Templating", "Driver")
    found += [key.lower() for key in drivers if (wanted.get(key) or None) != (spec.get(key) or None)]
    mine, theirs = wanted.get("Labels") or {}, spec.get("Labels") or {}
    names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    return (*found, *(f"Labels.{name}" for name in names))


def filled_in(body: Json, ids: Mapping[str, Mapping[str, str]]) -> Json:
    """A service's body with ids for the names of its networks, secrets and configs.

    `ids` maps `networks`, `secrets` and `configs` to ids by name; a name that is not there stays a name.
    """
    template: Json = dict(body["TaskTemplate"])
    container: Json = dict(template["ContainerSpec"])
    for key, kind, id_key, name_key in (
        ("Secrets", "secrets", "SecretID", "SecretName"),
        ("Configs", "configs", "ConfigID", "ConfigName"),
    ):
        if container.get(key):
            container[key] = [_with(each, id_key, each.get(name_key), ids[kind]) for each in container[key]]
    template["ContainerSpec"] = container
    for holder in (template, body := dict(body)):
        if holder.get("Networks"):
            holder["Networks"] = _attached(holder["Networks"], ids["networks"])
    return body | {"TaskTemplate": template}


def _attached(networks: Sequence[Json], ids: Mapping[str, str]) -> list[Json]:
    return [_with(each, "Target", each["Target"], ids) for each in networks]


def _with(item: Json, key: str, name: str | None, ids: Mapping[str, str]) -> Json:
    return item | {key: ids[name]} if name is not None and name in ids else item
