"""Sealing of everything the store keeps: pure, given the key and the random bytes.

Format: `0x01 | salt (32) | nonce (12) | AES-256-GCM ciphertext and tag`. The key of each record is derived by
HKDF-SHA256 from the cluster's data key and the record's salt, so random nonces never run out; the store key
is the associated data, so a value moved under another key does not open.
Invariant: `open_sealed(k, seal(k, v)) == v`, and no other key, place or byte opens it.
"""

from __future__ import annotations

import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarm.base.errors import SwarmError

DATA_KEY_BYTES = 32
_FORMAT = b"\x01"
_SALT = 32
_NONCE = 12
_TAG = 16
SEALED_EXTRA_BYTES = 1 + _SALT + _NONCE + _TAG
"""What sealing adds to a value's length."""
_INFO = b"swarm record v1"
_BLIND_INFO = b"swarm claim v1"


class Unsealable(SwarmError):
    """The bytes were not sealed by this key for this place, or were changed since."""


def new_data_key() -> bytes:
    return secrets.token_bytes(DATA_KEY_BYTES)


class Box:
    """Seals and opens values with one data key."""

    def __init__(self, data_key: bytes) -> None:
        self._data_key = data_key
        derivation = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_BLIND_INFO)
        self._blind_key = derivation.derive(data_key)

    def seal(self, place: str, plain: bytes) -> bytes:
        salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
        return _FORMAT + salt + nonce + self._cipher(salt).encrypt(nonce, plain, place.encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        """Raises: Unsealable."""
        if sealed[:1] != _FORMAT or len(sealed) < 1 + _SALT + _NONCE:
            raise Unsealable(f"the stored value at {place} is not in a known format")
        salt = sealed[1 : 1 + _SALT]
        nonce = sealed[1 + _SALT : 1 + _SALT + _NONCE]
        try:
            return self._cipher(salt).decrypt(nonce, sealed[1 + _SALT + _NONCE :], place.encode())
        except InvalidTag:
            raise Unsealable(f"the stored value at {place} does not open with this cluster's key") from None

    def blind(self, word: str) -> str:
        """The same for the same word and key, and telling nothing of it without the key."""
        return hmac.digest(self._blind_key, word.encode(), "sha256").hex()

    def _cipher(self, salt: bytes) -> AESGCM:
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=_INFO).derive(self._data_key)
        return AESGCM(derived)
