"""--publish: the short form `[PUBLISHED:]TARGET[/PROTOCOL]` and the long form `published=,target=,...`. Pure.

Out: PortConfig objects of the API, with our `source` and `proxy-protocol` beside. Raises ValueError with
Docker's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from swarm.model.port_options import VALUES

PROTOCOLS = ("tcp", "udp", "sctp")
"""Options of ours are beside the API's fields, by their own names: `edit_ports` turns them into labels."""

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_publish(text: str) -> list[dict[str, Any]]:
    if "=" in text:
        return [_parse_long(text)]
    return _parse_short(text)


def parse_unpublish(text: str) -> list[Callable[[dict[str, Any]], bool]]:
    """What `--publish-rm` names: target ports, in any mode unless the long form says one."""
    has_mode = "mode=" in text.lower()
    return [_matcher(port, has_mode=has_mode) for port in parse_publish(text)]


def _matcher(wanted: dict[str, Any], *, has_mode: bool) -> Callable[[dict[str, Any]], bool]:
    keys = ("Protocol", "TargetPort", "PublishMode") if has_mode else ("Protocol", "TargetPort")
    return lambda port: all(port.get(key) == wanted[key] for key in keys)


def _parse_long(text: str) -> dict[str, Any]:
    port: dict[str, Any] = {"Protocol": "tcp", "PublishMode": "ingress"}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise ValueError(f"invalid field: {field}")
        known = _FIELDS.get(key.strip().lower())
        if known is None:
            raise ValueError(f"invalid field key: {key}")
        name, read = known
        port[name] = read(value.lower())
    if "TargetPort" not in port:
        raise ValueError("missing mandatory field 'target'")
    for option in [name for name in VALUES if name in port]:
        if "PublishedPort" not in port or port["PublishMode"] != "ingress":
            raise ValueError(f"{option} needs a published port in ingress mode")
    return port


def _protocol(value: str, message: str) -> str:
    if value not in PROTOCOLS:
        raise ValueError(f"{message}: {value}")
    return value


def _port(value: str, name: str) -> int:
    if not value.isdecimal() or not 0 < int(value) <= 65535:
        raise ValueError(f"invalid {name} port ({value}): it is a number from 1 to 65535")
    return int(value)


def _mode(value: str) -> str:
    if value not in ("ingress", "host"):
        raise ValueError(f"invalid publish mode value (ingress or host): {value}")
    return value


def _option(name: str, value: str) -> str:
    if value not in VALUES[name]:
        raise ValueError(f"invalid {name} value ({' or '.join(VALUES[name])}): {value}")
    return value


_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "protocol": ("Protocol", lambda value: _protocol(value, "invalid protocol value")),
    "mode": ("PublishMode", _mode),
    "target": ("TargetPort", lambda value: _port(value, "target")),
    "published": ("PublishedPort", lambda value: _port(value, "published")),
    **{name: (name, partial(_option, name)) for name in VALUES},
}


def _parse_short(text: str) -> list[dict[str, Any]]:
    ports, _, protocol = text.partition("/")
    protocol = _protocol(protocol.lower() or "tcp", "invalid proto")
    address, _, rest = ports.rpartition(":")
    host, colon, published = address.rpartition(":")
    if colon or (address and not published):
        if host and published:
            raise ValueError("hostip is not supported")
        raise ValueError(f"invalid port specification: {text}")
    if not rest:
        raise ValueError(f"no port specified: {text}<empty>")
    targets = _range(rest, "containerPort")
    if not published:
        return [_entry(protocol, target, 0) for target in targets]
    outer = _range(published, "hostPort")
    if len(targets) == 1:
        return [_entry(protocol, targets[0], port) for port in outer]
    if len(outer) != len(targets):
        raise ValueError(f"invalid ranges specified for container and host Ports: {rest} and {published}")
    return [_entry(protocol, target, port) for target, port in zip(targets, outer, strict=True)]


def _entry(protocol: str, target: int, published: int) -> dict[str, Any]:
    port: dict[str, Any] = {"Protocol": protocol, "TargetPort": target, "PublishMode": "ingress"}
    return port | ({"PublishedPort": published} if published else {})


def _range(text: str, name: str) -> list[int]:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid {name}: {text}")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 0 < first <= last <= 65535:
        raise ValueError(f"invalid {name}: {text}")
    return list(range(first, last + 1))
