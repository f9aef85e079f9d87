"""Device nodes of the host: paths in, numbers and modes out.

Invariant: nothing but character and block devices below /dev ever gets into a container this way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from swarm.base.errors import Fatal
from swarm.model.container_rules import Device
from swarm.worker.runtime.resolved import DeviceNode

_DEV = Path("/dev")
_OWN = frozenset(
    {"console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero"}
)
"""What a container has of its own."""


def find_devices(devices: Iterable[Device]) -> tuple[DeviceNode, ...]:
    """Raises: Fatal, in Docker's words."""
    found: list[DeviceNode] = []
    for device in devices:
        try:
            status = os.stat(device.host)
        except OSError as error:
            raise Fatal(
                f'error gathering device information while adding custom device "{device.host}": '
                f"{(error.strerror or 'not found').lower()}"
            ) from error
        node = _node(device.container, status, device.access)
        if node is None:
            raise Fatal(
                f'error gathering device information while adding custom device "{device.host}": '
                "not a device node"
            )
        found.append(node)
    return tuple(found)


def all_devices(root: Path = _DEV) -> tuple[DeviceNode, ...]:
    """Every device of the host that a container does not have of its own."""
    return tuple(_walk(root, _OWN))


def _walk(folder: Path, without: frozenset[str]) -> Iterator[DeviceNode]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in without or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), frozenset())
        elif node := _node(entry.path, entry.stat(), "rwm"):
            yield node


def _node(path: str, status: os.stat_result, access: str) -> DeviceNode | None:
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return DeviceNode(
        path=path,
        kind=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        access=access,
    )
