"""Local volumes: named directories under <state>/volumes that outlive the containers using them.

In: names, labels, and an image's directory to fill a new volume from. Out: host paths to bind. Layout:
volumes/<name>/{volume.json,_data/,new}. `new` is there until the volume's first use; an image's content is
copied to a side directory and renamed over the empty `_data`, so that a kill leaves all of it or nothing.
Blocking: callers in the loop go through `asyncio.to_thread`. Source: docs.docker.com/engine/storage/volumes.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from swarm.base.clock import Clock
from swarm.base.errors import FailedPrecondition, InvalidArgument, NotFound
from swarm.base.trees import remove_tree
from swarm.worker.images.files import write_atomically

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_COPY_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    name: str
    path: Path
    """The directory to mount."""
    created_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    """`type`, `device`, `o`: what to mount in place of the directory. Whoever uses it mounts it."""


class VolumeStore:
    """All volumes of a host. Safe to use from several threads."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._lock = threading.Lock()

    def create(
        self, name: str, labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
    ) -> Volume:
        """The volume `name`, made with `labels` and `options` if it is missing.

        Raises:
            InvalidArgument: not a volume name.
        """
        if not _NAME.fullmatch(name) or len(name) > 255:
            raise InvalidArgument(
                f'"{name}" includes invalid characters for a local volume name, '
                'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed'
            )
        with self._lock:
            directory = self._root / name
            if not (directory / "volume.json").exists():
                self._make(directory, labels or {}, options or {})
            return self._load(directory)

    def get(self, name: str) -> Volume:
        directory = self._root / name
        if not _NAME.fullmatch(name) or not (directory / "volume.json").exists():
            raise NotFound("volume", name)
        return self._load(directory)

    def list(self) -> list[Volume]:
        if not self._root.is_dir():
            return []
        found = (entry for entry in sorted(self._root.iterdir()) if (entry / "volume.json").exists())
        return [self._load(entry) for entry in found]

    def remove(self, name: str) -> None:
        """Remove the volume and all in it; the caller knows that no container uses it. Missing is fine."""
        if not _NAME.fullmatch(name):
            return
        with self._lock:
            # The description goes first: a half removed volume is no volume any more.
            (self._root / name / "volume.json").unlink(missing_ok=True)
            with suppress(OSError):
                remove_tree(self._root / name)
        if (self._root / name).exists():
            raise FailedPrecondition(f"remove {name}: volume is in use")

    def use(self, name: str, *, content_fd: int | None = None) -> Path:
        """The path to mount; at its first use a volume takes over what the directory `content_fd` holds."""
        volume = self.create(name)
        with self._lock:
            marker = volume.path.parent / "new"
            if marker.exists():
                if content_fd is not None and not any(volume.path.iterdir()):
                    self._populate(volume.path, content_fd)
                marker.unlink()
        return volume.path

    def _make(self, directory: Path, labels: Mapping[str, str], options: Mapping[str, str]) -> None:
        (directory / "_data").mkdir(parents=True, exist_ok=True)
        self._root.chmod(0o711)
        (directory / "new").touch()
        created_at = self._clock.now().isoformat()
        text = json.dumps({"created_at": created_at, "labels": dict(labels), "options": dict(options)})
        # On disk before the volume is used: it must not be lost to a power cut that its content survives.
        write_atomically(directory / "volume.json", text.encode())

    def _load(self, directory: Path) -> Volume:
        text = json.loads((directory / "volume.json").read_text())
        created_at = datetime.fromisoformat(text["created_at"])
        return Volume(
            name=directory.name,
            path=directory / "_data",
            created_at=created_at,
            labels=text["labels"],
            options=text.get("options", {}),
        )

    def _populate(self, path: Path, content_fd: int) -> None:
        side = path.parent / "_data.new"
        remove_tree(side)
        side.mkdir()
        side_fd = os.open(side, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _copy_tree(content_fd, side_fd)
        finally:
            os.close(side_fd)
        side.rename(path)


def _copy_tree(source_fd: int, target_fd: int) -> None:
    """Copy a directory's entries and its own owner and mode; symbolic links are copied, never followed."""
    listing_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=source_fd)
    try:
        with os.scandir(listing_fd) as entries:
            for entry in entries:
                _copy_entry(entry.name, listing_fd, target_fd)
        _copy_attributes(listing_fd, target_fd)
    finally:
        os.close(listing_fd)


def _copy_entry(name: str, source: int, target: int) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        return
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        # Device nodes, sockets and pipes of an image have no place in a volume.
        return
    is_directory = stat.S_ISDIR(status.st_mode)
    flags = os.O_RDONLY | os.O_NOFOLLOW | (os.O_DIRECTORY if is_directory else os.O_NONBLOCK)
    source_fd = os.open(name, flags, dir_fd=source)
    try:
        if is_directory:
            os.mkdir(name, 0o700, dir_fd=target)
            target_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
        else:
            target_fd = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target
            )
        try:
            if is_directory:
                _copy_tree(source_fd, target_fd)
            else:
                _copy_bytes(source_fd, target_fd)
                _copy_attributes(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _copy_bytes(source_fd: int, target_fd: int) -> None:
    while os.sendfile(target_fd, source_fd, None, _COPY_BLOCK):
        pass


def _copy_attributes(source_fd: int, target_fd: int) -> None:
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(source_fd):
        if attribute.startswith(("user.", "security.capability")):
            with suppress(OSError):
                os.setxattr(target_fd, attribute, os.getxattr(source_fd, attribute))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
