"""Small file operations of the image store. All block: callers use `asyncio.to_thread` for long ones.

Invariant: a file written by `write_atomically` is, after a crash at any moment, the old one or the new one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from swarm.base.failpoint import failpoint

_CHUNK = 1 << 20


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` (mode 0600): temporary file beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    failpoint("images.file.written")
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """The `sha256:` digest of a regular file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return "sha256:" + digest.hexdigest()
