"""Which mounts make sense: refused when a service is created. Pure; Docker's sentences where it has one.

Invariant: a path is absolute, climbs nowhere and holds no control character. Source: moby volume/mounts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from swarm.base.errors import InvalidArgument
from swarm.model.container import Driver
from swarm.model.types import Mount, MountType, VolumeOptions

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVER_OPTIONS = frozenset({"device", "o", "type"})
_PROPAGATIONS = frozenset({"", "private", "rprivate", "shared", "rshared", "slave", "rslave"})


def validate_mounts(mounts: Iterable[Mount]) -> None:
    seen: set[str] = set()
    for mount in mounts:
        validate_mount(mount)
        target = _normal_path(mount.target)
        if target in seen:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        seen.add(target)


def validate_mount(mount: Mount) -> None:
    if not mount.target:
        raise InvalidArgument(f'invalid mount config for type "{mount.type}": field Target must not be empty')
    _check_path(mount, "target", mount.target)
    if _normal_path(mount.target) == "/":
        raise InvalidArgument(f"invalid mount target {mount.target}: destination can't be '/'")
    _refuse_foreign_options(mount)
    match mount.type:
        case MountType.BIND:
            _validate_bind(mount)
        case MountType.VOLUME:
            _validate_volume(mount.source, mount.volume_options)
        case MountType.TMPFS:
            _validate_tmpfs(mount)


def _validate_bind(mount: Mount) -> None:
    if not mount.source:
        raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
    _check_path(mount, "source", mount.source)
    options = mount.bind_options
    if options is None:
        return
    if options.propagation not in _PROPAGATIONS:
        raise InvalidArgument(f"invalid propagation mode: {options.propagation}")
    if options.read_only_force_recursive and not mount.read_only:
        raise InvalidArgument("mount option ReadOnlyForceRecursive goes with ReadOnly")


def _validate_volume(name: str, options: VolumeOptions | None) -> None:
    if len(name) == 1:
        raise InvalidArgument(
            f'volume name "{name}" is too short, names should be at least two alphanumeric characters'
        )
    if name and not _VOLUME_NAME.fullmatch(name):
        raise InvalidArgument(
            f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" '
            "are allowed. If you intended to pass a host directory, use absolute path"
        )
    if options is None:
        return
    if options.subpath and (options.subpath.startswith("/") or ".." in options.subpath.split("/")):
        raise InvalidArgument(f"invalid volume subpath {options.subpath!r}: must be a path inside the volume")
    if _CONTROL.search(options.subpath):
        raise InvalidArgument(f"invalid volume subpath {options.subpath!r}: control characters in the path")
    if options.driver_config is not None:
        _validate_driver(options.driver_config)


def _validate_driver(driver: Driver) -> None:
    if driver.name not in ("", "local"):
        raise InvalidArgument(f'volume driver "{driver.name}" is not available: nodes have only "local"')
    for key, value in driver.options.items():
        if key not in _DRIVER_OPTIONS:
            raise InvalidArgument(f'invalid volume option "{key}": the local driver knows device, o and type')
        if _CONTROL.search(value):
            raise InvalidArgument(f'invalid volume option "{key}": control characters in its value')
    if driver.options and not driver.options.get("device"):
        raise InvalidArgument('missing required option: "device": what the volume is to be')


def _validate_tmpfs(mount: Mount) -> None:
    if mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    options = mount.tmpfs_options
    if options and (options.size_bytes < 0 or not 0 <= options.mode <= 0o7777):
        raise InvalidArgument(f"invalid tmpfs options for {mount.target}: size or mode out of range")


def _refuse_foreign_options(mount: Mount) -> None:
    given = {
        "BindOptions": (mount.bind_options, MountType.BIND),
        "VolumeOptions": (mount.volume_options, MountType.VOLUME),
        "TmpfsOptions": (mount.tmpfs_options, MountType.TMPFS),
    }
    for name, (options, kind) in given.items():
        if options is not None and mount.type is not kind:
            raise InvalidArgument(
                f'invalid mount config for type "{mount.type}": field {name} must not be specified'
            )


def _check_path(mount: Mount, what: str, path: str) -> None:
    if not path.startswith("/"):
        raise InvalidArgument(
            f"invalid mount {what} '{path}' for type \"{mount.type}\": mount path must be absolute"
        )
    if _CONTROL.search(path):
        raise InvalidArgument(f"invalid mount {what} {path!r}: control characters in the path")
    if ".." in path.split("/"):
        raise InvalidArgument(f"invalid mount {what} '{path}': '..' is not allowed in the path")


def _normal_path(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
