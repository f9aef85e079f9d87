"""What a lab leaves on disk: where, and the locks and the record that make it safe to be killed half-way.

    /run/swarm-lab/lock           held while a subnet is chosen, or a lab comes or goes
    /run/swarm-lab/ip_forward     the machine's setting before the first lab
    /run/swarm-lab/NAME/lock      held by the command that changes the lab
    /run/swarm-lab/NAME/lab.json  the record, written before anything else is made
    /run/swarm-lab/NAME/hosts     the /etc/hosts of its hosts
    /run/swarm-lab/NAME/HOST.pid  the host's first process, and when it started
    /var/lib/swarm-lab/NAME/HOST  disk/ and swarmd.log

Invariant: a record is replaced atomically, so a reader sees the old one or the new one.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import NotFound, Unavailable
from swarm.lab import names

RUN_DIR = Path("/run/swarm-lab")
DISK_DIR = Path("/var/lib/swarm-lab")
LOCK = RUN_DIR / "lock"
_RECORD = "lab.json"
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A lab as it was asked for. `daemon` is empty for hosts without one; a cut is a sorted pair of hosts."""

    name: str
    subnet: IPv4Network
    hosts: tuple[str, ...]
    daemon: tuple[str, ...]
    cuts: frozenset[tuple[str, str]] = frozenset()

    def peers_cut_from(self, host: str) -> tuple[str, ...]:
        return tuple(sorted(b if a == host else a for a, b in self.cuts if host in (a, b)))

    def with_cut(self, a: str, b: str) -> Record:
        return dataclasses.replace(self, cuts=self.cuts | {(min(a, b), max(a, b))})

    def without_cuts(self, pair: tuple[str, str] | None) -> Record:
        gone = self.cuts if pair is None else {(min(pair), max(pair))}
        return dataclasses.replace(self, cuts=self.cuts - gone)


def encode(record: Record) -> str:
    fields = {
        "name": record.name,
        "subnet": str(record.subnet),
        "hosts": record.hosts,
        "daemon": record.daemon,
        "cuts": sorted(record.cuts),
    }
    return json.dumps(fields, indent=1)


def decode(text: str) -> Record:
    fields = json.loads(text)
    return Record(
        name=fields["name"],
        subnet=IPv4Network(fields["subnet"]),
        hosts=tuple(fields["hosts"]),
        daemon=tuple(fields["daemon"]),
        cuts=frozenset((a, b) for a, b in fields["cuts"]),
    )


def run_dir(lab: str) -> Path:
    return RUN_DIR / lab


def disk_dir(lab: str) -> Path:
    return DISK_DIR / lab


def save(record: Record) -> None:
    write_atomically(run_dir(record.name) / _RECORD, encode(record))


def load(lab: str) -> Record:
    """Raises: NotFound: there is no such lab."""
    found = find(lab)
    if found is None:
        raise NotFound("lab", f"{lab} (`swarm lab up --name {lab}` makes it)")
    return found


def find(lab: str) -> Record | None:
    try:
        return decode((run_dir(names.checked_name(lab)) / _RECORD).read_text())
    except FileNotFoundError:
        return None


def list_all() -> tuple[Record, ...]:
    if not RUN_DIR.is_dir():
        return ()
    labs = (find(path.name) for path in sorted(RUN_DIR.iterdir()) if path.is_dir())
    return tuple(lab for lab in labs if lab is not None)


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.rename(path)


@contextmanager
def locked(path: Path, *, what: str, timeout_s: float = 60.0) -> Iterator[None]:
    """Hold the lock file `path`, which its holder may remove. The kernel lets go of it when the holder dies.

    Raises:
        Unavailable: somebody else held it all the time; `what` says what is busy.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_s
    while (descriptor := _try_lock(path)) is None:
        if clock.monotonic() > deadline:
            raise Unavailable(f"{what} is busy: another swarm lab command works on it")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the directory was removed in this moment
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    os.close(descriptor)
    return None
