"""Files that must not get to a disk: a file system in memory for each container, bound file by file.

In: bytes, owner, mode and target of each file. Out: mounts for the container. Invariants: nobody but root
gets to the files by way of the host; the kernel does not swap them out where it knows how not to; `take_back`
leaves nothing of them. Blocking. Source: tmpfs(5); `noswap` needs a kernel of 6.4 or later.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from swarm.base.errors import Fatal
from swarm.worker.runtime import kernel
from swarm.worker.runtime.config import DeliveredFile
from swarm.worker.runtime.mounts import Root, land
from swarm.worker.runtime.resolved import ResolvedMount

_PAGE = 4096
_SPARE_PAGES = 16
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


def deliver(files: Sequence[DeliveredFile], place: Path, root: Root) -> list[ResolvedMount]:
    """Write the files below `place`, in memory, for a container with this root. Raises: Fatal, OSError."""
    if not files:
        return []
    take_back(place)
    place.mkdir(mode=0o700)
    _mount(place, sum(len(file.data) // _PAGE + 1 for file in files) + _SPARE_PAGES)
    mounts = []
    for number, file in enumerate(files):
        source = place / str(number)
        _write(source, file)
        target = land(root, file.target, directory=False)
        if (root.path / target.removeprefix("/")).is_dir():
            raise Fatal(f"cannot put a file at {file.target}: the image has a directory there")
        options = ("bind", "rprivate", "ro", "nosuid", "nodev", "noexec")
        mounts.append(ResolvedMount(target=target, source=str(source), options=options))
    return mounts


def take_back(place: Path) -> None:
    """Unmount what `deliver` mounted; missing is fine. A container that still runs keeps its view of it."""
    while os.path.ismount(place):
        kernel.unmount(str(place))
    if place.is_dir():
        place.rmdir()


def _mount(place: Path, pages: int) -> None:
    options = f"mode=0700,size={pages * _PAGE}"
    try:
        kernel.mount(
            source="tmpfs", target=str(place), kind="tmpfs", flags=_FLAGS, options=f"{options},noswap"
        )
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        kernel.mount(source="tmpfs", target=str(place), kind="tmpfs", flags=_FLAGS, options=options)


def _write(path: Path, file: DeliveredFile) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as output:
        output.write(file.data)
        os.fchown(descriptor, file.uid, file.gid)
        os.fchmod(descriptor, file.mode)
