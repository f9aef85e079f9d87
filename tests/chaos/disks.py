"""Disks that lose what was not synced: each host of a lab has a file system of its own on a loop device.

In: a lab that is up. Out: its hosts on such disks, and power cuts after which a host finds what its disk had.
What is written and not synced lies in the page cache of that file system, and the file behind the device does
not have it. A cut ends the host, copies that file, and mounts the copy: what only the cache had is gone, as
after a reset of the machine. Invariant: nothing is mounted once the lab is down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from swarm.lab import programs
from swarm.lab.host import home
from swarm.lab.lab import Lab

SIZE = "768M"
_LAZY = "loop,commit=600"
"""The journal is not written for its own sake while a test runs."""


class CrashDisks:
    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory

    def mount(self, host: str) -> None:
        """A new, empty file system for a host that is off."""
        image = self.image(host)
        programs.run(["truncate", "-s", SIZE, str(image)])
        programs.run(["mkfs.ext4", "-q", "-F", str(image)])
        programs.run(["mount", "-o", _LAZY, str(image), self.place(host)])

    def cut_power(self, hosts: Iterable[str]) -> None:
        """Of all of them at once, as near as can be; then their disks are as a reset leaves them."""
        for host in hosts:
            self._lab.kill(host)
        for host in hosts:
            image, lost = self.image(host), self._directory / f"{host}.lost"
            programs.run(["cp", "--sparse=always", str(image), f"{image}.kept"])
            programs.run(["umount", self.place(host)])
            image.replace(lost)
            Path(f"{image}.kept").replace(image)
            lost.unlink()
            programs.run(["mount", "-o", _LAZY, str(image), self.place(host)])

    def image(self, host: str) -> Path:
        return self._directory / f"{host}.ext4"

    def place(self, host: str) -> str:
        return str(home(self._lab.name, host) / "disk")


@contextmanager
def crash_disks(lab: Lab, directory: Path) -> Iterator[CrashDisks]:
    """All hosts of the lab get one; they are off and on again for it, and have lost what they had."""
    disks = CrashDisks(lab, directory)
    with ExitStack() as stack:
        for status in lab.ls():
            lab.kill(status.name)
            disks.mount(status.name)
            stack.callback(_unmount, lab, disks, status.name)
            lab.start(status.name)
        yield disks


def _unmount(lab: Lab, disks: CrashDisks, host: str) -> None:
    if any(status.name == host and status.state == "running" for status in lab.ls()):
        lab.kill(host)
    programs.run(["umount", "--lazy", disks.place(host)])
    disks.image(host).unlink(missing_ok=True)
