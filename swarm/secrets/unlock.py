"""The lock on a manager's secrets: pure, given the unlock key and the random bytes.

Every node has a locker key that seals its private keys on disk. The locker key itself is in one small file,
the lock: open (whoever has the disk has it) or closed with the cluster's unlock key. So turning the lock on
or off, or changing its key, replaces one file: there is no moment at which half of the keys are locked.
Source: SwarmKit design/raft_encryption.md for what is locked; Docker for `SWMKEY-1-`.
Invariant: a closed lock opens with the key that closed it and with no other; a changed byte opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from swarm.base.errors import FailedPrecondition, InvalidArgument, Unauthenticated, Unavailable
from swarm.secrets.box import Box, Unsealable

KEY_BYTES = 32
_PREFIX = "SWMKEY-1-"
_OPEN = b"swarm lock 1 open\n"
_CLOSED = b"swarm lock 1 closed\n"
_PLACE = "lock"


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


def make_lock(locker: bytes, unlock_key: str) -> bytes:
    """The lock's file, closed with `unlock_key`, or open when that is empty."""
    if not unlock_key:
        return _OPEN + locker
    return _CLOSED + Box(parse_unlock_key(unlock_key)).seal(_PLACE, locker)


def open_lock(lock: bytes, unlock_key: str) -> bytes:
    """The locker key. An open lock needs no key.

    Raises:
        Locked: it is closed, and `unlock_key` is empty.
        WrongUnlockKey: it was closed with another key, or has been changed.
        InvalidArgument: `unlock_key` is none.
        FailedPrecondition: it is no lock.
    """
    if lock.startswith(_OPEN) and len(lock) == len(_OPEN) + KEY_BYTES:
        return lock.removeprefix(_OPEN)
    if not lock.startswith(_CLOSED):
        raise FailedPrecondition("the node's lock file is damaged: leave with --force and join again")
    if not unlock_key:
        raise Locked("the swarm is locked")
    try:
        return Box(parse_unlock_key(unlock_key)).open(_PLACE, lock.removeprefix(_CLOSED))
    except Unsealable:
        raise WrongUnlockKey from None
