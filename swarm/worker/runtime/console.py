"""The socket over which an OCI runtime hands out the controlling side of a terminal.

Source: runc docs/terminals.md; man 3 cmsg (SCM_RIGHTS).
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from swarm.base.errors import Temporary


class ConsoleSocket:
    """Listens in `folder` while the context is open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.folder_fd = -1
        """To be kept open in the runtime, since `address` goes through it."""

    @property
    def address(self) -> str:
        # By descriptor: the folder's path may be longer than a socket's address.
        return f"/proc/self/fd/{self.folder_fd}/console"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder_fd = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
            stack.callback(os.close, self.folder_fd)
            self._listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._listener.setblocking(False)
            self._listener.bind(self.address)
            self._listener.listen(1)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    async def receive(self) -> int:
        """The terminal, as a descriptor that does not block and that the caller closes."""
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(self._listener)
        with connection:
            ready = asyncio.Event()
            loop.add_reader(connection, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(connection)
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        if not descriptors:
            raise Temporary("the runtime sent no terminal")
        os.set_inheritable(descriptors[0], False)
        os.set_blocking(descriptors[0], False)
        return descriptors[0]
