"""Removal of directories that containers have filled.

In: a path. Out: it is gone, whatever is below it. Blocking.

Invariant: neither the stack nor the open descriptors grow with the depth of the tree, and no link is
followed: a program may nest directories as deep as it likes, and what it left must still go.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove whatever is at `path`; nothing there is fine. Raises: OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        path.unlink()
        return
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        pending = _empty(top, top)
        while pending:
            name = pending.pop()
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            try:
                pending += _empty(folder, top)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def _empty(folder: int, top: int) -> list[str]:
    """Unlink the files of `folder` and move its directories up to `top`, under names that nobody has."""
    moved: list[str] = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if is_directory:
            fresh = secrets.token_hex(16)
            os.rename(name, fresh, src_dir_fd=folder, dst_dir_fd=top)
            moved.append(fresh)
        else:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return moved
