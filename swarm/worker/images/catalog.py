"""The images that this node has and what they are called, on disk and in memory.

In: configurations and names. Out: `Image` values with their names in Docker's short form.

    index.json   see `index.py`          configs/<64 digits>   the configuration, byte by byte

Invariant: a configuration is on disk before the index names it, and leaves after the index has forgotten it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from swarm.base.errors import Ambiguous, InvalidArgument
from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.base.trees import remove_tree
from swarm.model.image_reference import Reference, is_digest, parse_reference
from swarm.worker.images.errors import InvalidImage, no_such_image
from swarm.worker.images.files import write_atomically
from swarm.worker.images.image import Image, parse_image
from swarm.worker.images.index import Index, decode_index, encode_index

_PARTIAL_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")

_log = get_logger("images")


class Catalog:
    def __init__(self, root: Path) -> None:
        self._index_path = root / "index.json"
        self._configs = root / "configs"
        self._index = Index()
        self._images: dict[str, Image] = {}

    def recover(self, sizes: Callable[[Image], int | None]) -> None:
        """Read the index; drop images whose configuration or layers are gone (`sizes` answers None)."""
        self._configs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._images = {}
        self._index = decode_index(self._index_path.read_bytes()) if self._index_path.exists() else Index()
        found = self._index
        for image_id in found.images:
            image = self._read_config(image_id)
            size = sizes(image) if image else None
            if image is None or size is None:
                _log.warning("images.incomplete_dropped", image=image_id)
                found = found.without_image(image_id)
            else:
                self._images[image_id] = replace(image, size=size)
        if found is not self._index:
            self._save(found)
        known = {_hex(image_id) for image_id in found.images}
        for path in self._configs.iterdir():
            if path.name not in known:
                remove_tree(path)

    def list(self) -> tuple[Image, ...]:
        """All images, the newest first."""
        images = sorted(self._images.values(), key=lambda image: (image.created, image.id), reverse=True)
        return tuple(self._named(image) for image in images)

    def find(self, image_id: str) -> Image | None:
        image = self._images.get(image_id)
        return self._named(image) if image else None

    def find_reference(self, reference: Reference) -> Image | None:
        """The image with this very tag or digest; the digest counts when both are there."""
        if reference.digest:
            image_id = self._index.digests.get(f"{reference.repository}@{reference.digest}")
        else:
            image_id = self._index.tags.get(str(reference.with_default_tag()))
        return self.find(image_id) if image_id else None

    def get(self, name_or_id: str) -> tuple[Image, Reference | None]:
        """The image and, when it was found by name, that name. Order: full id, name, unique prefix of an id.

        Raises:
            ImageNotFound, Ambiguous, InvalidArgument (not a name at all).
        """
        if is_digest(name_or_id) and (image := self.find(name_or_id)):
            return image, None
        reference: Reference | None = None
        partial = _PARTIAL_ID.fullmatch(name_or_id)
        try:
            reference = parse_reference(name_or_id)
        except InvalidArgument:
            if not partial:
                raise
        if reference and (image := self.find_reference(reference)):
            return image, reference
        if partial:
            found = [image_id for image_id in self._images if _hex(image_id).startswith(partial[1])]
            if len(found) > 1:
                raise Ambiguous("image", name_or_id, len(found))
            if found:
                return self._named(self._images[found[0]]), None
        raise no_such_image(reference.with_default_tag().familiar() if reference else name_or_id)

    def add(self, image: Image, config: bytes, names: tuple[str, ...]) -> Image:
        """List `image` under `names`: full references, each with a tag or with a digest."""
        if image.id not in self._images:
            write_atomically(self._configs / _hex(image.id), config)
        index = self._index.with_image(image.id)
        self._images[image.id] = replace(image, repo_tags=(), repo_digests=())
        for name in names:
            index = index.with_digest(name, image.id) if "@" in name else index.with_tag(name, image.id)
        if index != self._index:
            self._save(index)
        return self._named(image)

    def name(self, image: Image, names: tuple[str, ...]) -> Image:
        """Give an image that is listed more names."""
        return self.add(image, b"", names)

    def forget_names(self, *names: str) -> None:
        index = self._index
        for name in names:
            index = index.without_name(name)
        self._save(index)

    def forget(self, image_id: str) -> None:
        self._save(self._index.without_image(image_id))
        self._images.pop(image_id, None)
        (self._configs / _hex(image_id)).unlink(missing_ok=True)

    def names(self, image_id: str) -> tuple[str, ...]:
        """Full names: tags first, then digests."""
        return (*self._index.tags_of(image_id), *self._index.digests_of(image_id))

    def layers(self) -> set[str]:
        return {layer for image in self._images.values() for layer in image.layers}

    def _named(self, image: Image) -> Image:
        return replace(
            image,
            repo_tags=tuple(familiar(name) for name in self._index.tags_of(image.id)),
            repo_digests=tuple(familiar(name) for name in self._index.digests_of(image.id)),
        )

    def _save(self, index: Index) -> None:
        failpoint("images.index.before")
        write_atomically(self._index_path, encode_index(index))
        failpoint("images.index.after")
        self._index = index

    def _read_config(self, image_id: str) -> Image | None:
        with contextlib.suppress(OSError, InvalidImage):
            image = parse_image((self._configs / _hex(image_id)).read_bytes())
            return image if image.id == image_id else None
        return None


def familiar(name: str) -> str:
    return parse_reference(name).familiar()


def _hex(image_id: str) -> str:
    return image_id.removeprefix("sha256:")
