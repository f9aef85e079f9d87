"""The loader's only door to the file system: files that compose files name, inside the project's folder.

Invariant: only regular files are read, never more than MAX_SIZE of one or MAX_FILES of them, and none whose
real path lies outside the folder unless that is allowed. What it read once it hands out again.
"""

from __future__ import annotations

import os
import stat

from swarm.base.errors import InvalidArgument, NotFound

MAX_SIZE = 1024 * 1024
MAX_FILES = 1000
OUTSIDE_FLAG = "--allow-outside"


class ProjectFiles:
    def __init__(self, folder: str, *, is_outside_allowed: bool) -> None:
        self._folder = os.path.realpath(folder)
        self._is_outside_allowed = is_outside_allowed
        self._read: dict[str, bytes] = {}

    def read(self, path: str, *, is_named_by_user: bool = False) -> bytes:
        """`is_named_by_user`: on the command line, so it may be anywhere.

        Raises:
            NotFound: there is no such file.
            InvalidArgument: it may not be read, or is no file of a sensible size.
        """
        real = os.path.realpath(path)
        is_inside = real.startswith(self._folder.rstrip("/") + "/")
        if not (is_inside or is_named_by_user or self._is_outside_allowed):
            raise InvalidArgument(
                f"{path} lies outside the project's folder {self._folder}: allow that with {OUTSIDE_FLAG}"
            )
        if real not in self._read:
            if len(self._read) >= MAX_FILES:
                raise InvalidArgument(f"more than {MAX_FILES} files are named")
            self._read[real] = _content(real, path)
        return self._read[real]

    def text(self, path: str, *, is_named_by_user: bool = False) -> str:
        content = self.read(path, is_named_by_user=is_named_by_user)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise InvalidArgument(f"{path}:{line}: not UTF-8: is it a text file?") from None


def _content(real: str, shown: str) -> bytes:
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidArgument(f"{shown} is not a regular file")
            content = file.read(MAX_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("file", shown) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise InvalidArgument(f"cannot read {shown}: {reason}") from None
    if len(content) > MAX_SIZE:
        raise InvalidArgument(f"{shown} is too large: at most {MAX_SIZE} bytes")
    return content
