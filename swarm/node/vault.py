"""The node's secrets on disk: files sealed with its locker key, and the lock that holds that key.

In: contents by file. Out: files that open on this node only, and under autolock only with the unlock key.
Each is sealed with its file's name, so one cannot stand in for another. The lock: swarm.secrets.unlock.
"""

from __future__ import annotations

from pathlib import Path

from swarm.base.errors import FailedPrecondition
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.proto.identity import write_private
from swarm.secrets.box import Box, Unsealable
from swarm.secrets.unlock import count_keys, make_lock, new_locker_key, open_lock

LOCK_FILE = "lock"

log = get_logger("vault")


class Vault:
    def __init__(self, directory: Path, locker: bytes, unlock_keys: tuple[str, ...] | None) -> None:
        """Made by `create_vault` and `open_vault`. `unlock_keys` open the lock; None: some are unknown."""
        self._file = directory / LOCK_FILE
        self._locker = locker
        self._box = Box(locker)
        self._unlock_keys = unlock_keys

    def lock_with(self, unlock_key: str, next_key: str = "") -> None:
        """From now on the lock takes this key, and the next if there is one; none when `unlock_key` is empty.

        Atomic: the old lock, or the new.
        """
        unlock_keys = (unlock_key, next_key) if unlock_key and next_key else (unlock_key,)
        if unlock_keys != self._unlock_keys:
            failpoint("lock.change.before")
            write_private(self._file, make_lock(self._locker, *unlock_keys))
            failpoint("lock.change.after")
            self._unlock_keys = unlock_keys
            log.info("lock.changed", closed=bool(unlock_key), keys=len(unlock_keys))

    def seal(self, place: str, plain: bytes) -> bytes:
        return self._box.seal(place, plain)

    def open(self, place: str, sealed: bytes) -> bytes:
        """Raises: Unsealable."""
        return self._box.open(place, sealed)

    def write(self, path: Path, content: bytes) -> None:
        """Replace `path` by the sealed content, atomically."""
        write_private(path, self.seal(path.name, content))

    def read(self, path: Path) -> bytes:
        """Raises: FailedPrecondition when the file is missing or not what this vault wrote there."""
        try:
            return self.open(path.name, path.read_bytes())
        except (FileNotFoundError, Unsealable) as error:
            raise FailedPrecondition(
                f"{path} cannot be read ({error}): restore it, or leave with --force and join again"
            ) from error


def create_vault(directory: Path, unlock_key: str = "") -> Vault:
    """A new one, before anything is sealed with it."""
    locker = new_locker_key()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(directory / LOCK_FILE, make_lock(locker, unlock_key))
    return Vault(directory, locker, (unlock_key,))


def open_vault(directory: Path, unlock_key: str = "") -> Vault:
    """The node's own. A key that was not needed is not remembered as the lock's.

    Raises:
        Locked: it takes the unlock key.
        WrongUnlockKey, InvalidArgument: this is not it.
        FailedPrecondition: there is no lock, or it is damaged.
    """
    try:
        lock = (directory / LOCK_FILE).read_bytes()
    except FileNotFoundError:
        raise FailedPrecondition(
            f"{directory / LOCK_FILE} is missing: restore it, or leave with --force and join again"
        ) from None
    locker = open_lock(lock, unlock_key)
    known: tuple[tuple[str, ...], ...] = (("",), (unlock_key,))
    keys = count_keys(lock)
    return Vault(directory, locker, known[keys] if keys < len(known) else None)
