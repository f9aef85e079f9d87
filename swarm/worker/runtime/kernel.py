"""System calls that the standard library lacks (mount, umount2, openat2) and safe paths in a foreign root.

What comes in are paths inside a root file system that nobody trusts. Invariant: no function here follows a
symbolic link out of the root it was given (openat2 with RESOLVE_IN_ROOT, kernel 5.6).
"""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path, PurePosixPath

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MNT_DETACH = 0x2
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _raise_errno(path: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)


def mount(*, source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    arguments = (
        source.encode(),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        os.fsencode(options),
    )
    if _libc.mount(*arguments) != 0:
        _raise_errno(target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily unless told otherwise."""
    if _libc.umount2(os.fsencode(target), flags) != 0:
        _raise_errno(target)


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Open `path` as a process chrooted to `root_fd` would; returns a descriptor that closes on exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    descriptor: int = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(root_fd),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if descriptor < 0:
        _raise_errno(path)
    return descriptor


def read_in_root(root_fd: int, path: str, *, limit_bytes: int = 1 << 20) -> bytes | None:
    """A regular file's first `limit_bytes`, or None when there is no such file."""
    try:
        descriptor = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, limit_bytes) if is_file else None
    finally:
        os.close(descriptor)


def make_dirs_in_root(root_fd: int, path: str) -> int:
    """Create `path` and its parents where they are missing; returns an O_PATH descriptor of it."""
    parts = PurePosixPath(path).parts[1:]
    current = open_in_root(root_fd, "/", os.O_PATH | os.O_DIRECTORY)
    for depth, name in enumerate(parts, start=1):
        prefix = "/" + "/".join(parts[:depth])
        try:
            following = open_in_root(root_fd, prefix, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            try:
                os.mkdir(name, 0o755, dir_fd=current)
                following = open_in_root(root_fd, prefix, os.O_PATH | os.O_DIRECTORY)
            except OSError:
                os.close(current)
                raise
        except OSError:
            os.close(current)
            raise
        os.close(current)
        current = following
    return current


def resolve_target(root: Path, root_fd: int, path: str, *, directory: bool) -> str:
    """Where a mount at `path` lands inside the root, symbolic links followed there; created when missing.

    Raises:
        OSError: a component is no directory, or a dangling link stands in the way.
    """
    try:
        descriptor = open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        if directory:
            descriptor = make_dirs_in_root(root_fd, path)
        else:
            pure = PurePosixPath(path)
            parent = make_dirs_in_root(root_fd, str(pure.parent))
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(f"/proc/self/fd/{parent}/{pure.name}", flags, 0o644))
            finally:
                os.close(parent)
            descriptor = open_in_root(root_fd, path, os.O_PATH)
    try:
        landed = os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return "/" + str(Path(landed).relative_to(os.path.realpath(root))).removeprefix(".")
