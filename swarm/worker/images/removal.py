"""What removing an image by name or by id takes away, or why it must not: pure.

In: the image, its full names, the containers that use it, and how it was asked for. Out: a `Removal`.

Invariant: an image that a container uses is never deleted, forced or not.
Source: Docker's image delete, its cases and sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from swarm.model.image_reference import Reference, parse_reference
from swarm.worker.images.errors import ImageInUse
from swarm.worker.images.image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """`untagged` with a short name, or `deleted` with an image id."""

    kind: Literal["untagged", "deleted"]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    names: tuple[str, ...]
    delete: bool
    items: tuple[Removed, ...]


def plan_removal(
    image: Image, names: tuple[str, ...], users: tuple[str, ...], *, name: Reference | None, force: bool
) -> Removal:
    """`name` is the name that the image was found by, None when it was an id.

    Raises:
        ImageInUse: with Docker's sentence.
    """
    if name is None:
        return _by_id(image, names, users, force=force)
    full = f"{name.repository}@{name.digest}" if name.digest else str(name.with_default_tag())
    others = [other for other in names if other != full]
    if any("@" not in other for other in others):
        return _removal(image, (full,), delete=False)
    if users and not force:
        short_name = name.with_default_tag().familiar()
        raise ImageInUse(
            f'conflict: unable to remove repository reference "{short_name}" (must force) - '
            f"container {users[0][:12]} is using its referenced image {image.short_id}"
        )
    return _removal(image, (full,), delete=False) if users else _removal(image, names, delete=True)


def _by_id(image: Image, names: tuple[str, ...], users: tuple[str, ...], *, force: bool) -> Removal:
    repositories = {parse_reference(name).repository for name in names}
    if users:
        raise ImageInUse(
            f"conflict: unable to delete {image.short_id} (cannot be forced) - "
            f"image is being used by running container {users[0][:12]}"
        )
    if len(repositories) > 1 and not force:
        raise ImageInUse(
            f"conflict: unable to delete {image.short_id} (must be forced) - "
            "image is referenced in multiple repositories"
        )
    return _removal(image, names, delete=True)


def _removal(image: Image, names: tuple[str, ...], *, delete: bool) -> Removal:
    items = tuple(Removed(kind="untagged", name=parse_reference(name).familiar()) for name in names)
    deleted = (Removed(kind="deleted", name=image.id),) if delete else ()
    return Removal(names=names, delete=delete, items=items + deleted)
