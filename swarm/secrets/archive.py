"""The outside of a backup file: compressed, encrypted with a passphrase or an unlock key, checked as a whole.

Format: `SWARM-BACKUP 1 <passphrase|unlock-key>\\n | salt (16) | sealed content | SHA-256 of all before`,
sealed by box.py with line and salt as its place. The checksum tells a damaged file from a wrong key; the seal
proves the content. A passphrase is stretched by scrypt (32 MiB); an unlock key is random enough as it is.
Invariant: `open_archive(seal_archive(x, k), k) == x`; a file with any byte changed, cut or added is refused.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from swarm.base.errors import InvalidArgument, PermissionDenied
from swarm.secrets.box import Box, Unsealable
from swarm.secrets.unlock import parse_unlock_key

_MAGIC = "SWARM-BACKUP 1 "
_SALT = 16
_CHECKSUM = 32
_LONGEST_LINE = 64


class KeyKind(StrEnum):
    PASSPHRASE = "passphrase"  # noqa: S105 - the word
    UNLOCK_KEY = "unlock-key"


@dataclass(frozen=True, slots=True)
class ArchiveKey:
    """What opens a backup: a passphrase, or an unlock key as users keep it."""

    kind: KeyKind
    text: str

    def __repr__(self) -> str:
        return f"ArchiveKey({self.kind}, ***)"


def seal_archive(content: bytes, key: ArchiveKey) -> bytes:
    """Takes a third of a second for a passphrase."""
    line, salt = f"{_MAGIC}{key.kind}\n", secrets.token_bytes(_SALT)
    sealed = _box(key, salt).seal(line + salt.hex(), zlib.compress(content))
    whole = line.encode() + salt + sealed
    return whole + hashlib.sha256(whole).digest()


def archive_kind(archive: bytes) -> KeyKind:
    """With what a backup is to be opened. Raises: InvalidArgument when it is no whole backup."""
    line = archive[:_LONGEST_LINE].partition(b"\n")[0].decode("latin-1")
    kind = line.removeprefix(_MAGIC)
    if kind == line or kind not in set(KeyKind):
        raise InvalidArgument("this is not a backup of a swarm, or one of a later version")
    if hashlib.sha256(archive[:-_CHECKSUM]).digest() != archive[-_CHECKSUM:]:
        raise InvalidArgument("the backup is damaged: its checksum is wrong; use another copy of it")
    return KeyKind(kind)


def open_archive(archive: bytes, text: str) -> bytes:
    """The content; `text` is the passphrase, or the unlock key if it was made with one.

    Raises:
        InvalidArgument: it is no backup, or a damaged one.
        PermissionDenied: `text` does not open it.
    """
    kind = archive_kind(archive)
    line = f"{_MAGIC}{kind}\n"
    salt = archive[len(line) : len(line) + _SALT]
    sealed = archive[len(line) + _SALT : -_CHECKSUM]
    try:
        return zlib.decompress(_box(ArchiveKey(kind, text), salt).open(line + salt.hex(), sealed))
    except Unsealable:
        noun = "passphrase" if kind is KeyKind.PASSPHRASE else "unlock key"
        raise PermissionDenied(f"the backup does not open with this {noun}") from None


def _box(key: ArchiveKey, salt: bytes) -> Box:
    if key.kind is KeyKind.UNLOCK_KEY:
        return Box(parse_unlock_key(key.text))
    return Box(Scrypt(salt=salt, length=32, n=2**15, r=8, p=3).derive(key.text.encode()))
