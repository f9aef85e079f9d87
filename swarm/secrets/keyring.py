"""The data keys that a manager holds: one, or two while the cluster moves from the one to the other. Pure.

In: data keys. Out: what is sealed with a named one of them, what any of them opens, and which one did.
A key's name is a digest that tells nothing of it, so names may be shown and stored in the clear.
Invariant: a ring is never empty, and its first key is the one that it has held longest.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarm.base.errors import InvalidArgument, Unavailable
from swarm.secrets.box import DATA_KEY_BYTES, Box, Unsealable

_NAME_INFO = b"swarm data key name v1"
_NAME_BYTES = 8


def name_of(data_key: bytes) -> str:
    """What a data key is called: 16 hexadecimal digits."""
    return (
        HKDF(algorithm=hashes.SHA256(), length=_NAME_BYTES, salt=None, info=_NAME_INFO).derive(data_key).hex()
    )


class Keyring:
    def __init__(self, data_keys: Iterable[bytes]) -> None:
        self.hold(data_keys)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._keys)

    @property
    def data_keys(self) -> tuple[bytes, ...]:
        return tuple(self._keys.values())

    def hold(self, data_keys: Iterable[bytes]) -> None:
        """From now on these keys and no others. Raises: InvalidArgument."""
        named = {name_of(key): key for key in data_keys}
        if not named or any(len(key) != DATA_KEY_BYTES for key in named.values()):
            raise InvalidArgument("the data key is damaged: it has a wrong length")
        self._keys = named
        self._boxes = {name: Box(key) for name, key in named.items()}

    def box(self, name: str) -> Box:
        """Raises: Unavailable when this manager has not got the key yet."""
        try:
            return self._boxes[name]
        except KeyError:
            raise Unavailable(
                "this manager does not have the swarm's present data key yet; try again"
            ) from None

    def open(self, place: str, sealed: bytes) -> tuple[str, bytes]:
        """The name of the key that opens it, and the content. Raises: Unsealable."""
        problem = Unsealable(f"no key for the stored value at {place}")
        for name, box in reversed(self._boxes.items()):
            try:
                return name, box.open(place, sealed)
            except Unsealable as error:
                problem = error
        raise problem


def pack(data_keys: Iterable[bytes]) -> bytes:
    """Keys as a manager keeps them in a file."""
    return b"".join(data_keys)


def unpack(content: bytes) -> Keyring:
    """Raises: InvalidArgument when the content is not whole."""
    starts = range(0, len(content), DATA_KEY_BYTES)
    return Keyring(content[start : start + DATA_KEY_BYTES] for start in starts)
