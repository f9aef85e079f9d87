"""--mount: Docker's comma-separated form in, a Mount object of the API out; ValueError in its words. Pure."""

from __future__ import annotations

import csv
from typing import Any

from swarm.cli.values import parse_bytes

TYPES = ("volume", "bind", "tmpfs")
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")

_TRUE = ("1", "true")
_FALSE = ("0", "false")


def parse_mount(text: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"Type": "volume"}
    options: dict[str, dict[str, Any]] = {}
    for field in next(csv.reader([text], strict=True), []):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key in ("readonly", "ro"):
            mount["ReadOnly"] = _boolean(key, value if equals else "true")
        elif key == "volume-nocopy":
            options.setdefault("volume", {})["NoCopy"] = _boolean(key, value if equals else "true")
        elif not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        elif key == "volume-label":
            name, _, label = value.partition("=")
            options.setdefault("volume", {}).setdefault("Labels", {})[name] = label
        else:
            _set(mount, options, key, value)
    return _checked(mount, options)


def _set(mount: dict[str, Any], options: dict[str, dict[str, Any]], key: str, value: str) -> None:
    match key:
        case "type":
            if value.lower() not in TYPES:
                raise ValueError(f"invalid mount type '{value}': it is one of {', '.join(TYPES)}")
            mount["Type"] = value.lower()
        case "source" | "src":
            mount["Source"] = value
        case "target" | "destination" | "dst":
            mount["Target"] = value
        case "bind-propagation":
            if value not in PROPAGATIONS:
                raise ValueError(f"invalid propagation '{value}': it is one of {', '.join(PROPAGATIONS)}")
            options.setdefault("bind", {})["Propagation"] = value
        case "tmpfs-size":
            options.setdefault("tmpfs", {})["SizeBytes"] = parse_bytes(value)
        case "tmpfs-mode":
            try:
                options.setdefault("tmpfs", {})["Mode"] = int(value, 8)
            except ValueError:
                raise ValueError(f"invalid value for tmpfs-mode: {value}") from None
        case _:
            raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _boolean(key: str, value: str) -> bool:
    if value.lower() not in _TRUE + _FALSE:
        raise ValueError(f"invalid value for {key}: {value}")
    return value.lower() in _TRUE


def _checked(mount: dict[str, Any], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kind = mount["Type"]
    if not mount.get("Target"):
        raise ValueError("target is required")
    for other in options:
        if other != kind:
            raise ValueError(f"cannot mix '{other}-*' options with mount type '{kind}'")
    if kind == "bind" and not mount.get("Source"):
        raise ValueError("source is required for a bind mount")
    if kind == "tmpfs" and mount.get("Source"):
        raise ValueError("source is not allowed for a tmpfs mount")
    found = options.get(kind)
    return mount | ({f"{kind.capitalize()}Options": found} if found else {})
