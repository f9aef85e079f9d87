"""The lock on a manager's secrets: pure, given the unlock key and the random bytes.

Every node has a locker key that seals its private keys on disk. The locker key itself is in one small file,
the lock: open (whoever has the disk has it) or closed with the cluster's unlock key. So turning the lock on
or off, or changing its key, replaces one file: there is no moment at which half of the keys are locked.
While it is not certain that anybody has a new key, both that and the one before it open the lock.
Source: SwarmKit design/raft_encryption.md for what is locked; Docker for `SWMKEY-1-`.
Invariant: a closed lock opens with the keys that closed it and with no other; a changed byte opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from swarm.base.errors import FailedPrecondition, InvalidArgument, Unauthenticated, Unavailable
from swarm.secrets.box import SEALED_EXTRA_BYTES, Box, Unsealable

KEY_BYTES = 32
_PREFIX = "SWMKEY-1-"
_OPEN = b"swarm lock 1 open\n"
_CLOSED = b"swarm lock 1 closed\n"
_PLACE = "lock"
_SLOT_BYTES = SEALED_EXTRA_BYTES + KEY_BYTES


class Locked(Unavailable):
    """The lock is closed and no key was given."""


class WrongUnlockKey(Unauthenticated):
    def __init__(self) -> None:
        super().__init__("swarm could not be unlocked: invalid key provided")


def new_unlock_key() -> str:
    """A fresh unlock key, as users keep it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """Raises: InvalidArgument."""
    encoded = text.strip().removeprefix(_PREFIX)
    if encoded == text.strip():
        raise InvalidArgument("invalid key string")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument("invalid key string") from None
    if len(key) != KEY_BYTES:
        raise InvalidArgument("invalid key string")
    return key


def new_locker_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def make_lock(locker: bytes, *unlock_keys: str) -> bytes:
    """The lock's file: each of `unlock_keys` opens it; with an empty one it is open."""
    if not all(unlock_keys):
        return _OPEN + locker
    return _CLOSED + b"".join(Box(parse_unlock_key(key)).seal(_PLACE, locker) for key in unlock_keys)


def open_lock(lock: bytes, unlock_key: str) -> bytes:
    """The locker key. An open lock needs no key.

    Raises:
        Locked: it is closed, and `unlock_key` is empty.
        WrongUnlockKey: it was closed with other keys, or has been changed.
        InvalidArgument: `unlock_key` is none.
        FailedPrecondition: it is no lock.
    """
    if lock.startswith(_OPEN) and len(lock) == len(_OPEN) + KEY_BYTES:
        return lock.removeprefix(_OPEN)
    if not lock.startswith(_CLOSED):
        raise FailedPrecondition("the node's lock file is damaged: leave with --force and join again")
    if not unlock_key:
        raise Locked("the swarm is locked")
    box = Box(parse_unlock_key(unlock_key))
    for sealed in _slots(lock):
        try:
            return box.open(_PLACE, sealed)
        except Unsealable:
            continue
    raise WrongUnlockKey


def count_keys(lock: bytes) -> int:
    """How many keys open it; 0 for one that is open."""
    return len(_slots(lock)) if lock.startswith(_CLOSED) else 0


def _slots(lock: bytes) -> list[bytes]:
    """What a closed lock holds: the locker key, sealed once for each unlock key."""
    sealed = lock.removeprefix(_CLOSED)
    return [sealed[start : start + _SLOT_BYTES] for start in range(0, len(sealed), _SLOT_BYTES)]
