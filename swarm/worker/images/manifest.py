"""Manifests and indexes (manifest lists), read from untrusted bytes.

In: the bytes of a manifest or an index. Out: descriptors whose digests and sizes were checked, and the choice
of the manifest for one platform.

Invariant: every digest that leaves this module is `sha256:` and 64 hexadecimal digits: safe in a path.
Source: OCI image-spec manifest.md, image-index.md; CVE-2021-41190 (a document that is both), CVE-2024-3727.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm.base.errors import InvalidArgument
from swarm.model.image_reference import check_digest
from swarm.worker.images.errors import ImageNotFound, InvalidImage
from swarm.worker.images.image import LAYER_LIMIT, Json, parse_json

MANIFEST_LIMIT = 4 << 20
_SIZE_LIMIT = 1 << 40
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    media_type: str
    manifests: tuple[Descriptor, ...]


def platform_of(machine: str) -> Platform:
    """The platform of a host whose `uname -m` is `machine`."""
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


def parse_manifest(content: bytes) -> Manifest | Index:
    """Tell a manifest from an index and read it.

    Raises:
        InvalidImage: when it is neither, or both, or of the old schema 1.
    """
    if len(content) > MANIFEST_LIMIT:
        raise InvalidImage(f"invalid manifest: larger than {MANIFEST_LIMIT} bytes")
    document = parse_json(content, "manifest")
    if document.get("schemaVersion") != 2:
        raise InvalidImage("invalid manifest: only schema version 2 is supported; push the image again")
    declared = document.get("mediaType")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidImage("invalid manifest: it claims to be an index and a manifest at once")
    if "manifests" in document and (declared is None or declared in _INDEX_TYPES):
        entries = _descriptors(document["manifests"], "manifests")
        return Index(media_type=str(declared or _INDEX_TYPES[0]), manifests=entries)
    if "config" in document and (declared is None or declared in _MANIFEST_TYPES):
        layers = _descriptors(document.get("layers"), "layers")
        if len(layers) > LAYER_LIMIT:
            raise InvalidImage(f"invalid manifest: more than {LAYER_LIMIT} layers")
        return Manifest(
            media_type=str(declared or _MANIFEST_TYPES[0]),
            config=_descriptor(document["config"], "config"),
            layers=layers,
        )
    raise InvalidImage(f"invalid manifest: unsupported media type {str(declared)[:100]}")


def choose(index: Index, host: Platform, name: str) -> Descriptor:
    """The manifest of `index` for `host`; an entry without a platform fits as a last resort.

    Raises:
        ImageNotFound: with Docker's sentence, when no entry fits.
    """
    fitting = [d for d in index.manifests if d.platform and _fits(d.platform, host)]
    exact = [d for d in fitting if d.platform and d.platform.variant in ("", host.variant)]
    anywhere = [d for d in index.manifests if d.platform is None]
    for candidates in (exact, fitting, anywhere):
        if candidates:
            return candidates[0]
    raise ImageNotFound(f"no matching manifest for {host} in the manifest list entries of {name}")


def _fits(offered: Platform, host: Platform) -> bool:
    if (offered.os, offered.architecture) != (host.os, host.architecture):
        return False
    # Arm hosts run what was built for older variants (v6 on v7), never for newer ones.
    return not offered.variant or not host.variant or offered.variant <= host.variant


def _descriptors(value: object, name: str) -> tuple[Descriptor, ...]:
    if not isinstance(value, list):
        raise InvalidImage(f"invalid manifest: {name} is not a list")
    return tuple(_descriptor(item, name) for item in value)


def _descriptor(value: object, name: str) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidImage(f"invalid manifest: {name} is not a descriptor")
    try:
        digest = check_digest(value.get("digest"))
    except InvalidArgument as error:
        raise InvalidImage(f"invalid manifest: {name}: {error}") from error
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _SIZE_LIMIT:
        raise InvalidImage(f"invalid manifest: {name}: the size of {digest} is out of range")
    annotations = value.get("annotations")
    return Descriptor(
        media_type=_text(value, "mediaType"),
        digest=digest,
        size=size,
        platform=_platform(value.get("platform")),
        annotations=_annotations(annotations) if isinstance(annotations, dict) else {},
    )


def _platform(value: object) -> Platform | None:
    if not isinstance(value, dict):
        return None
    return Platform(
        os=_text(value, "os"), architecture=_text(value, "architecture"), variant=_text(value, "variant")
    )


def _text(value: Json, key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""


def _annotations(value: Json) -> dict[str, str]:
    return {key: text for key, text in value.items() if isinstance(text, str)}
