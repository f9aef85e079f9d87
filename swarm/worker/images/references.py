"""Which container uses which image: one small file per container, so that it outlives the daemon.

Invariant: while a container's file exists, its image and layers stay.
"""

from __future__ import annotations

import re
from pathlib import Path

from swarm.base.errors import InvalidArgument
from swarm.base.trees import remove_tree
from swarm.model.image_reference import is_digest

_CONTAINER = re.compile(r"[a-z0-9]{1,64}")


class ContainerReferences:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: dict[str, str] = {}

    def recover(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._images = {}
        for path in self._folder.iterdir():
            image_id = path.read_text()
            if _CONTAINER.fullmatch(path.name) and is_digest(image_id):
                self._images[path.name] = image_id
            else:
                remove_tree(path)

    def add(self, container_id: str, image_id: str) -> None:
        """Idempotent. No fsync: when the machine itself crashes no container is left that could need it."""
        if not _CONTAINER.fullmatch(container_id):
            raise InvalidArgument(f"invalid container id {container_id[:100]!r}")
        temporary = self._folder / f".{container_id}"
        temporary.write_text(image_id)
        temporary.rename(self._folder / container_id)
        self._images[container_id] = image_id

    def remove(self, container_id: str) -> None:
        """Idempotent."""
        if self._images.pop(container_id, None) is not None:
            (self._folder / container_id).unlink(missing_ok=True)

    def users(self, image_id: str) -> tuple[str, ...]:
        return tuple(sorted(c for c, image in self._images.items() if image == image_id))

    def image_of(self, container_id: str) -> str | None:
        return self._images.get(container_id)

    def containers(self) -> tuple[str, ...]:
        return tuple(sorted(self._images))
