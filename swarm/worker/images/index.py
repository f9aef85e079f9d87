"""Which images a node has, and under which names: pure values and their form on disk.

In: an index and a change. Out: a new index.

Invariant: every tag and digest points to an image that is listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from swarm.base.errors import FailedPrecondition
from swarm.model.image_reference import is_digest

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """`tags` (`docker.io/library/web:1`) and `digests` (`...web@sha256:...`) map full names to image ids."""

    images: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def with_image(self, image_id: str) -> Index:
        return replace(self, images=self.images | {image_id})

    def with_tag(self, name: str, image_id: str) -> Index:
        """The tag moves if another image has it."""
        assert image_id in self.images
        return replace(self, tags={**self.tags, name: image_id})

    def with_digest(self, name: str, image_id: str) -> Index:
        assert image_id in self.images
        return replace(self, digests={**self.digests, name: image_id})

    def without_name(self, name: str) -> Index:
        return replace(
            self,
            tags={key: value for key, value in self.tags.items() if key != name},
            digests={key: value for key, value in self.digests.items() if key != name},
        )

    def without_image(self, image_id: str) -> Index:
        return replace(
            self,
            images=self.images - {image_id},
            tags={key: value for key, value in self.tags.items() if value != image_id},
            digests={key: value for key, value in self.digests.items() if value != image_id},
        )

    def tags_of(self, image_id: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, value in self.tags.items() if value == image_id))

    def digests_of(self, image_id: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, value in self.digests.items() if value == image_id))


def encode_index(index: Index) -> bytes:
    document = {
        "version": _VERSION,
        "images": sorted(index.images),
        "tags": dict(index.tags),
        "digests": dict(index.digests),
    }
    return json.dumps(document, indent=1, sort_keys=True).encode()


def decode_index(content: bytes) -> Index:
    """Read what `encode_index` wrote.

    Raises:
        FailedPrecondition: a newer version wrote it, or it is damaged.
    """
    try:
        document = json.loads(content)
        version = document["version"]
        images = frozenset(str(image) for image in document["images"] if is_digest(str(image)))
        tags, digests = dict(document["tags"]), dict(document["digests"])
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            "the image index is damaged: remove it and pull or load the images again"
        ) from error
    if version != _VERSION:
        raise FailedPrecondition(f"the image index has version {version}, this program reads {_VERSION}")
    return Index(
        images=images,
        tags={name: image for name, image in tags.items() if image in images},
        digests={name: image for name, image in digests.items() if image in images},
    )
