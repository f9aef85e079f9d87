"""--mount: Docker's comma-separated form in, a Mount object of the API out; ValueError in its words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarm.cli.values import comma_fields, parse_bytes

TYPES = ("volume", "bind", "tmpfs")
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")

_SWITCHES = {"volume-nocopy": ("volume", "NoCopy"), "bind-create-src": ("bind", "CreateMountpoint")}
_TRUE = ("1", "true")
_FALSE = ("0", "false")


def parse_mount(text: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"Type": "volume"}
    options: dict[str, dict[str, Any]] = {}
    for field in comma_fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key in ("readonly", "ro"):
            mount["ReadOnly"] = _boolean(key, value if equals else "true")
        elif key in _SWITCHES:
            kind, name = _SWITCHES[key]
            options.setdefault(kind, {})[name] = _boolean(key, value if equals else "true")
        elif not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        elif key.startswith("volume-") and key != "volume-subpath":
            _set_volume(options.setdefault("volume", {}), key, value)
        else:
            _set(mount, options, key, value)
    return _checked(mount, options)


def _set_volume(options: dict[str, Any], key: str, value: str) -> None:
    name, _, text = value.partition("=")
    match key:
        case "volume-label":
            options.setdefault("Labels", {})[name] = text
        case "volume-opt":
            options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = text
        case "volume-driver":
            options.setdefault("DriverConfig", {})["Name"] = value
        case _:
            raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


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
        case _:
            kind, field, read = _OPTIONS.get(key, ("", "", None))
            if read is None:
                raise ValueError(f"unexpected key '{key}' in '{key}={value}'")
            section = options.setdefault(kind, {})
            if field:
                section[field] = read(value)
            else:
                section.update(read(value))


def _propagation(value: str) -> str:
    if value not in PROPAGATIONS:
        raise ValueError(f"invalid propagation '{value}': it is one of {', '.join(PROPAGATIONS)}")
    return value


def _mode(value: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for tmpfs-mode: {value}") from None


def _recursive(value: str) -> dict[str, bool]:
    """What becomes of the mounts below a bind."""
    match value:
        case "enabled":
            return {}
        case "disabled":
            return {"NonRecursive": True}
        case "writable":
            return {"ReadOnlyNonRecursive": True}
        case "readonly":
            return {"ReadOnlyForceRecursive": True}
        case _:
            raise ValueError(
                f"invalid value for bind-recursive: {value} "
                '(must be "enabled", "disabled", "writable", or "readonly")'
            )


_OPTIONS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "bind-propagation": ("bind", "Propagation", _propagation),
    "bind-recursive": ("bind", "", _recursive),
    "volume-subpath": ("volume", "Subpath", str),
    "tmpfs-size": ("tmpfs", "SizeBytes", parse_bytes),
    "tmpfs-mode": ("tmpfs", "Mode", _mode),
}
"""Whose option it is, its field (none: `read` gives several), and how its text is read."""


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
    if (
        kind == "bind"
        and (options.get("bind") or {}).get("ReadOnlyForceRecursive")
        and not mount.get("ReadOnly")
    ):
        raise ValueError(
            "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
        )
    found = options.get(kind)
    return mount | ({f"{kind.capitalize()}Options": found} if found else {})
