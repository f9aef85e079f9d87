"""Service keys that have a short and a long form, as the long one: ports, volumes, secrets, networks. Pure.

Raises InvalidArgument with the place. Source: Compose Specification, chapter Services; compose v3.13.
"""

from __future__ import annotations

import ipaddress
import os.path
import re
from typing import Any

from swarm.model.publish import PROTOCOLS, parse_publish
from swarm.stack.readers import (
    Reader,
    Scope,
    boolean,
    choice,
    entries_of,
    fields,
    integer,
    items_of,
    kind_of,
    labels,
    mode,
    pairs,
    size,
    text,
    text_or_texts,
    texts,
)
from swarm.stack.yaml_nodes import Map, Node, Scalar, Sequence

Json = dict[str, Any]
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_HOST_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]*\]|[0-9]+(?:\.[0-9]+){3}):(.*:.*)")
_PORT_RANGE = "a port is a number from 1 to 65535"
_EVERYWHERE = "is published on every node's addresses: the address is ignored"


def absolute(path: str, scope: Scope) -> str:
    """A path of the file as the client's file system has it."""
    if path == "~" or path.startswith("~/"):
        path = scope.home + path[1:] if scope.home else path
    return os.path.normpath(os.path.join(scope.directory, path))


# --- ports ----------------------------------------------------------------------------------------------


def read_ports(node: Node, scope: Scope) -> list[Json]:
    if not isinstance(node, Sequence):
        raise scope.wrong(node, f"expected a list, got {kind_of(node)}")
    found: list[Json] = []
    for index, item in enumerate(node.items):
        inner = scope.at(f"[{index}]", item)
        found += [_long_port(item, inner)] if isinstance(item, Map) else _short_port(item, inner)
    return found


def _short_port(node: Node, scope: Scope) -> list[Json]:
    written = text(node, scope)
    host = _HOST_ADDRESS.fullmatch(written)
    if host is not None:
        scope.notice(node.place, _EVERYWHERE)
    try:
        if "=" in written:
            raise ValueError(f"invalid port specification: {written}")
        ports = parse_publish(host[2].removeprefix(":") if host else written)
    except ValueError as error:
        raise scope.wrong(node, f"{error} ('{written}': {_PORT_RANGE}, as in 8080:80)") from None
    return [_port(port) for port in ports]


def _port(port: Json) -> Json:
    found = {"mode": port["PublishMode"], "target": port["TargetPort"], "protocol": port["Protocol"]}
    return found | ({"published": port["PublishedPort"]} if "PublishedPort" in port else {})


_LONG_PORT = fields(
    {
        "target": integer(1, 65535),
        "published": integer(0, 65535),
        "protocol": choice(*PROTOCOLS),
        "mode": choice("ingress", "host"),
        "name": text,
        "host_ip": text,
    },
    {"app_protocol": "traffic is passed on as it is"},
)


def _long_port(node: Node, scope: Scope) -> Json:
    found: Json = _LONG_PORT(node, scope)
    if "target" not in found:
        raise scope.wrong(node, "target is missing: the port inside the container")
    if found.pop("host_ip", "") not in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        scope.notice(node.place, _EVERYWHERE)
    if not found.get("published"):
        found.pop("published", None)
    return {"mode": "ingress", "protocol": "tcp"} | found


# --- volumes --------------------------------------------------------------------------------------------


def read_volumes(node: Node, scope: Scope) -> list[Json]:
    def read(item: Node, inner: Scope) -> Json:
        return _long_volume(item, inner) if isinstance(item, Map) else _short_volume(item, inner)

    found: list[Json] = items_of(read)(node, scope)
    _place_by(found, "target", node, scope)
    return found


def _place_by(found: list[Json], key: str, node: Node, scope: Scope) -> None:
    """So that a later check of an item, told apart by `key`, knows its place."""
    for each, item in zip(found, node.items if isinstance(node, Sequence) else (), strict=True):
        scope.places[(*scope.path, f"[{each[key]}]")] = item.place


def _short_volume(node: Node, scope: Scope) -> Json:
    written = text(node, scope)
    parts = written.split(":")
    if len(parts) > 3 or not all(parts):
        raise scope.wrong(node, f"invalid spec: {written}: expected [SOURCE:]TARGET[:OPTIONS]")
    if len(parts) == 1:
        return {"type": "volume", "target": written}
    source, target = parts[:2]
    is_bind = source[0] in "./~"
    volume: Json = {
        "type": "bind" if is_bind else "volume",
        "source": absolute(source, scope) if is_bind else source,
        "target": target,
    }
    for option in parts[2].split(",") if len(parts) == 3 else ():
        _set_option(volume, option, node, scope)
    return volume


def _set_option(volume: Json, option: str, node: Node, scope: Scope) -> None:
    match option:
        case "rw" | "cached" | "delegated" | "consistent":
            return
        case "ro":
            volume["read_only"] = True
        case "nocopy" if volume["type"] == "volume":
            volume["volume"] = {"nocopy": True}
        case "z" | "Z":
            scope.notice(node.place, f"ignores the option {option}: files get no SELinux labels")
        case _ if option in PROPAGATIONS and volume["type"] == "bind":
            volume["bind"] = {"propagation": option}
        case _:
            raise scope.wrong(node, f"unknown option '{option}' of a {volume['type']}")


_NO_SELINUX = {"selinux": "files get no SELinux labels"}
_LONG_VOLUME = fields(
    {
        "type": choice("volume", "bind", "tmpfs"),
        "source": text,
        "target": text,
        "read_only": boolean,
        "bind": fields({"propagation": choice(*PROPAGATIONS), "create_host_path": boolean}, _NO_SELINUX),
        "volume": fields(
            {"nocopy": boolean, "subpath": text}, {"labels": "the top-level volume has the labels"}
        ),
        "tmpfs": fields({"size": lambda node, scope: int(size(node, scope)), "mode": mode}),
    },
    {"consistency": "the files are the node's own"},
)


def _long_volume(node: Node, scope: Scope) -> Json:
    found: Json = _LONG_VOLUME(node, scope)
    kind = found.get("type")
    if kind is None:
        raise scope.wrong(node, "type is missing: volume, bind or tmpfs")
    if not found.get("target"):
        raise scope.wrong(node, "target is missing: where it appears in the container")
    for other in {"bind", "volume", "tmpfs"} - {kind}:
        if other in found:
            raise scope.wrong(node, f"{other} options do not fit the type {kind}")
    if kind == "tmpfs" and "source" in found:
        raise scope.wrong(node, "invalid tmpfs source, source must be empty")
    if kind == "bind":
        if not found.get("source"):
            raise scope.wrong(node, "invalid bind source, source cannot be empty")
        found["source"] = absolute(found["source"], scope)
    return found


# --- what services refer to -----------------------------------------------------------------------------

_FILE: dict[str, Reader] = {"source": text, "target": text, "uid": text, "gid": text, "mode": mode}


def read_file_references(node: Node, scope: Scope) -> list[Json]:
    """`secrets:` and `configs:`."""

    def read(item: Node, inner: Scope) -> Json:
        if isinstance(item, Scalar):
            return {"source": text(item, inner)}
        found: Json = fields(_FILE)(item, inner)
        if not found.get("source"):
            raise inner.wrong(item, "source is missing: the name below the top-level key")
        return found

    found: list[Json] = items_of(read)(node, scope)
    _place_by(found, "source", node, scope)
    return found


_NOT_FIXED = "a task gets its address from the network"
_ATTACHMENT = fields(
    {"aliases": texts, "driver_opts": labels},
    {
        "ipv4_address": _NOT_FIXED,
        "ipv6_address": _NOT_FIXED,
        "link_local_ips": _NOT_FIXED,
        "mac_address": _NOT_FIXED,
        "priority": "networks are joined in the order of their names",
        "gw_priority": "the default route is the ingress network's gateway",
        "interface_name": "interfaces are named in the order of the networks",
    },
)


def read_attachments(node: Node, scope: Scope) -> dict[str, Json]:
    """`networks:` of a service."""
    if isinstance(node, Sequence):
        return {name: {} for name in _names(node, scope)}
    found: dict[str, Json] = entries_of(_ATTACHMENT, is_null_allowed=True)(node, scope)
    return found


def _names(node: Sequence, scope: Scope) -> list[str]:
    found: list[str] = texts(node, scope)
    for name, item in zip(found, node.items, strict=True):
        scope.at(name, item)
    return found


_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
_DEPENDENCY = fields(
    {"condition": choice(*_CONDITIONS), "required": boolean},
    {"restart": "a service is not restarted when one that it depends on is"},
)


def read_dependencies(node: Node, scope: Scope) -> dict[str, Json]:
    if isinstance(node, Sequence):
        return {name: {"condition": _CONDITIONS[0]} for name in _names(node, scope)}
    found: dict[str, Json] = entries_of(_DEPENDENCY, is_null_allowed=True)(node, scope)
    return {name: {"condition": _CONDITIONS[0]} | each for name, each in found.items()}


def read_env_files(node: Node, scope: Scope) -> list[Json]:
    def read(item: Node, inner: Scope) -> Json:
        default = {"format": "raw"} if scope.is_legacy else {}
        if isinstance(item, Scalar):
            return {"path": absolute(text(item, inner), scope)} | default
        found: Json = fields({"path": text, "required": boolean, "format": choice("raw")})(item, inner)
        if not found.get("path"):
            raise inner.wrong(item, "path is missing")
        return default | found | {"path": absolute(found["path"], scope)}

    found: list[Json] = items_of(read, is_text_allowed=True)(node, scope)
    return found


def read_extends(node: Node, scope: Scope) -> Json:
    if isinstance(node, Scalar):
        return {"service": text(node, scope)}
    found: Json = fields({"service": text, "file": text})(node, scope)
    if not found.get("service"):
        raise scope.wrong(node, "service is missing: which one to extend")
    return found | ({"file": absolute(found["file"], scope)} if "file" in found else {})


# --- the rest -------------------------------------------------------------------------------------------

_LIMIT = integer(-1, 2**63 - 1)


def read_ulimits(node: Node, scope: Scope) -> dict[str, Any]:
    def read(item: Node, inner: Scope) -> Any:  # noqa: ANN401 - a number or a map
        if isinstance(item, Scalar):
            return _LIMIT(item, inner)
        found = fields({"soft": _LIMIT, "hard": _LIMIT})(item, inner)
        if found.keys() != {"soft", "hard"}:
            raise inner.wrong(item, "expected soft and hard")
        return found

    found: dict[str, Any] = entries_of(read)(node, scope)
    return found


def read_hosts(node: Node, scope: Scope) -> list[str]:
    """`extra_hosts:` as `name:address`."""
    if isinstance(node, Map):
        table: dict[str, list[str]] = entries_of(text_or_texts)(node, scope)
        found = [(name, address) for name, addresses in table.items() for address in addresses]
    else:
        found = [_host(each) for each in texts(node, scope)]
    for name, address in found:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise scope.wrong(node, f"'{name}:{address}' is not NAME:ADDRESS with an IP address") from None
    return [f"{name}:{address}" for name, address in found]


def _host(written: str) -> tuple[str, str]:
    name, _, address = written.partition("=" if "=" in written else ":")
    return name.strip(), address.strip().strip("[]")


def read_health_test(node: Node, scope: Scope) -> list[str]:
    if isinstance(node, Scalar):
        return ["CMD-SHELL", text(node, scope)]
    found: list[str] = texts(node, scope)
    if found and found[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise scope.wrong(node, f"a test begins with NONE, CMD or CMD-SHELL, not '{found[0]}'")
    return found


def read_sysctls(node: Node, scope: Scope) -> dict[str, str]:
    return {key: value or "" for key, value in pairs(node, scope).items()}


_RESTART = re.compile(r"no|always|unless-stopped|on-failure(?::[0-9]{1,9})?")


def read_restart(node: Node, scope: Scope) -> str:
    found = text(node, scope)
    if not _RESTART.fullmatch(found):
        raise scope.wrong(
            node, f"invalid restart policy '{found}': no, always, unless-stopped or on-failure[:N]"
        )
    return found


def read_tmpfs(node: Node, scope: Scope) -> list[str]:
    """`/run`, or `/run:size=64m,mode=1777,ro`."""
    found: list[str] = text_or_texts(node, scope)
    for each in found:
        target, _, options = each.partition(":")
        for option in options.split(",") if options else ():
            is_known = re.fullmatch(r"size=[0-9]{1,15}[kmgKMG]?[bB]?|mode=0?[0-7]{3,4}|ro|rw", option)
            if not is_known:
                raise scope.wrong(node, f"'{each}': unknown option '{option}': size=64m, mode=1777, ro")
        if not target.startswith("/"):
            raise scope.wrong(node, f"'{each}': the target is no absolute path")
    return found


def read_host_only(node: Node, scope: Scope) -> str:
    """`pid:` and `ipc:`: `host` is known."""
    found = text(node, scope)
    if found != "host":
        scope.notice(node.place, f"has no effect: of '{found}' and 'host', only host is known to a swarm")
    return found
