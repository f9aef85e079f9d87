"""Network namespaces that outlive their makers: each is a bind mount under one directory.

In: names. Out: paths, descriptors, and calls carried out inside a namespace.

Invariant: only threads made for the purpose ever change their namespace, and they end afterwards; no other
thread of the process is ever found in the wrong one. Source: setns(2), ip-netns(8).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """The namespaces of this host's tasks and overlays."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self._directory / name

    def exists(self, name: str) -> bool:
        """A file without a mount on it is what a crash between two steps left: no namespace."""
        return os.path.ismount(self.path(name))

    def ensure(self, name: str) -> bool:
        """Make the namespace unless it is there. Returns whether it was made."""
        if self.exists(name):
            return False
        path = self.path(name)
        path.touch(mode=0o600)
        _in_thread(lambda: _unshare_and_bind(path))
        return True

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[int]:
        """A descriptor of the namespace. Raises: FileNotFoundError."""
        descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def run(self, name: str, call: Callable[[], _T]) -> _T:
        """`call` carried out inside the namespace."""
        with self.open(name) as descriptor:

            def inside() -> _T:
                _check(_libc.setns(descriptor, _CLONE_NEWNET), "setns", name)
                return call()

            return _in_thread(inside)

    def delete(self, name: str) -> None:
        """Let the namespace go. Its links go with it, as soon as no process is in it any more."""
        path = self.path(name)
        while self.exists(name):
            _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), "umount", name)
        path.unlink(missing_ok=True)

    def list_names(self) -> list[str]:
        """Everything in the directory, also what a crash left half made."""
        return sorted(os.listdir(self._directory)) if self._directory.is_dir() else []


def write_sysctl(name: str, value: str) -> None:
    """Set a network sysctl of the calling thread's namespace, if it differs. `name` is a path under net/."""
    path = Path("/proc/sys/net", name)
    if path.read_text().split() != value.split():
        path.write_text(value)


def has_ipv6() -> bool:
    """Whether this host's kernel speaks IPv6."""
    return Path("/proc/sys/net/ipv6").exists()


def disable_ipv6(link: str) -> None:
    """No IPv6 on `link` ("all", "default" or a name); nothing to do where the kernel has none."""
    with contextlib.suppress(FileNotFoundError):
        write_sysctl(f"ipv6/conf/{link}/disable_ipv6", "1")


def enable_ipv6(link: str) -> None:
    """IPv6 on `link`, with no address but those it is given: none of its own making, none by a router's word.

    `default` is for links that are yet to come.
    """
    for name in ("accept_ra", "autoconf", "accept_redirects", "dad_transmits"):
        write_sysctl(f"ipv6/conf/{link}/{name}", "0")
    write_sysctl(f"ipv6/conf/{link}/addr_gen_mode", "1")
    write_sysctl(f"ipv6/conf/{link}/disable_ipv6", "0")


def _unshare_and_bind(path: Path) -> None:
    _check(_libc.unshare(_CLONE_NEWNET), "unshare", path.name)
    own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    _check(_libc.mount(own.encode(), os.fsencode(path), b"none", _MS_BIND, None), "mount", path.name)


def _check(result: int, call: str, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call} of network namespace {name}: {os.strerror(number)}")


def _in_thread(call: Callable[[], _T]) -> _T:
    """Run `call` in a thread of its own, which may change its namespace since nothing else uses it."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
