"""The steps from a reference to the one manifest that this host needs.

In: a registry and a reference. Out: what the name means (`Resolved`), and the image behind it (`Selected`).

Invariant: from the first answer on everything is asked for by digest, so a tag that moves meanwhile changes
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from swarm.model.image_reference import Reference
from swarm.worker.images.errors import InvalidImage
from swarm.worker.images.image import Image, parse_image
from swarm.worker.images.manifest import Descriptor, Index, Manifest, Platform, choose, parse_manifest
from swarm.worker.images.registry import Registry, RegistryAuth

_UNKNOWN = "unknown"  # what builders write for attestations, which are no images


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One line of a pull as Docker words it; `id` is a layer's short digest, or empty."""

    id: str = ""
    status: str


Tell = Callable[[Progress], None]


def ignore_progress(_progress: Progress) -> None:
    """For callers that do not show progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference means now. `digest` is the registry's name for the manifest or the whole index."""

    reference: Reference
    digest: str
    media_type: str
    size: int
    document: Manifest | Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The answer to `GET /distribution/{name}/json`."""

    digest: str
    media_type: str
    size: int
    platforms: tuple[Platform, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """One platform's image. `reference` is pinned to its own manifest."""

    reference: Reference
    manifest: Manifest
    config: bytes
    image: Image

    def blobs(self) -> dict[str, Descriptor]:
        """The compressed layer behind each diff id."""
        return dict(zip(self.image.layers, self.manifest.layers, strict=True))


async def resolve(registry: Registry, reference: Reference, auth: RegistryAuth | None) -> Resolved:
    """Ask the registry what `reference` means."""
    content = await registry.manifest(reference, auth)
    document = parse_manifest(content)
    return Resolved(
        reference=reference,
        digest="sha256:" + hashlib.sha256(content).hexdigest(),
        media_type=document.media_type,
        size=len(content),
        document=document,
    )


async def describe(registry: Registry, resolved: Resolved, auth: RegistryAuth | None) -> Distribution:
    """Add the platforms: an index lists them, a single manifest has one in its configuration."""
    if isinstance(resolved.document, Index):
        listed = [d.platform for d in resolved.document.manifests if d.platform]
        platforms = tuple(p for p in listed if p.os != _UNKNOWN)
    else:
        pinned = _pin(resolved.reference, resolved.digest)
        image = parse_image(await registry.config(pinned, resolved.document.config, auth))
        platforms = (Platform(os=image.os, architecture=image.architecture, variant=image.variant),)
    return Distribution(
        digest=resolved.digest, media_type=resolved.media_type, size=resolved.size, platforms=platforms
    )


async def select(
    registry: Registry, resolved: Resolved, host: Platform, auth: RegistryAuth | None
) -> Selected:
    """The image for `host`.

    Raises:
        ImageNotFound: the index has nothing for this platform.
        InvalidImage: manifest and configuration do not belong together.
    """
    name = resolved.reference.familiar()
    pinned, manifest = _pin(resolved.reference, resolved.digest), resolved.document
    if isinstance(manifest, Index):
        pinned = _pin(pinned, choose(manifest, host, name).digest)
        manifest = parse_manifest(await registry.manifest(pinned, auth))
    if isinstance(manifest, Index):
        raise InvalidImage(f"pulling {name}: indexes are nested too deeply")
    config = await registry.config(pinned, manifest.config, auth)
    image = parse_image(config)
    if len(image.layers) != len(manifest.layers):
        counts = f"{len(manifest.layers)} layers, the configuration {len(image.layers)}"
        raise InvalidImage(f"pulling {name}: the manifest lists {counts}")
    return Selected(reference=pinned, manifest=manifest, config=config, image=image)


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _pin(reference: Reference, digest: str) -> Reference:
    return reference.without_digest().with_digest(digest)
