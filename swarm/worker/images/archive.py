"""Reads the two kinds of image archive after they were unpacked into a folder.

In: a folder that the sandbox filled from `docker save`'s tar or an OCI layout's tar. Out: for each image its
configuration, its layers' files and its names.

Invariant: every file that is returned lies inside the folder, and what an OCI layout names by digest has it.
Source: OCI image-layout.md; Docker's image archive (`manifest.json`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarm.base.errors import InvalidArgument
from swarm.model.image_reference import parse_reference
from swarm.worker.images.errors import InvalidImage
from swarm.worker.images.files import hash_file
from swarm.worker.images.image import CONFIG_LIMIT
from swarm.worker.images.manifest import Descriptor, Index, Manifest, Platform, choose, parse_manifest

_FULL_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """`names` are full references (`docker.io/library/web:1`), perhaps none."""

    config: bytes
    layers: tuple[Path, ...]
    names: tuple[str, ...]


def read_archive(folder: Path, host: Platform) -> list[ArchivedImage]:
    """All images of the archive that fit `host`. Blocking: hashes every blob of an OCI layout.

    Raises:
        InvalidImage: it is no image archive, or it is damaged.
    """
    if (folder / "manifest.json").exists():
        return list(_docker_archive(folder))
    if (folder / "index.json").exists():
        return list(_oci_archive(folder, host))
    raise InvalidImage(
        "invalid archive: it has neither manifest.json (docker save) nor index.json (OCI layout)"
    )


def _docker_archive(folder: Path) -> Iterator[ArchivedImage]:
    try:
        entries = json.loads(_read(folder, "manifest.json"))
        for entry in entries:
            yield ArchivedImage(
                config=_read(folder, str(entry["Config"])),
                layers=tuple(_inside(folder, str(layer)) for layer in entry["Layers"]),
                names=tuple(_name(str(tag)) for tag in entry.get("RepoTags") or ()),
            )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidImage("invalid archive: manifest.json is not what docker save writes") from error


def _oci_archive(folder: Path, host: Platform) -> Iterator[ArchivedImage]:
    index = parse_manifest(_read(folder, "index.json"))
    if not isinstance(index, Index):
        raise InvalidImage("invalid archive: index.json is not an index")
    for descriptor in index.manifests:
        manifest = _manifest(folder, descriptor, host)
        yield ArchivedImage(
            config=_blob(folder, manifest.config).read_bytes(),
            layers=tuple(_blob(folder, layer) for layer in manifest.layers),
            names=_names(descriptor),
        )


def _manifest(folder: Path, descriptor: Descriptor, host: Platform) -> Manifest:
    """The manifest behind `descriptor`, through at most one nested index."""
    document = parse_manifest(_blob(folder, descriptor).read_bytes())
    if isinstance(document, Index):
        document = parse_manifest(_blob(folder, choose(document, host, "the archive")).read_bytes())
    if isinstance(document, Index):
        raise InvalidImage("invalid archive: indexes are nested too deeply")
    return document


def _blob(folder: Path, descriptor: Descriptor) -> Path:
    path = _inside(folder, "blobs/sha256/" + descriptor.digest.removeprefix("sha256:"))
    if path.stat().st_size != descriptor.size or hash_file(path) != descriptor.digest:
        raise InvalidImage(
            f"invalid archive: blob {descriptor.digest} does not have the content its name promises"
        )
    return path


def _read(folder: Path, name: str) -> bytes:
    path = _inside(folder, name)
    if path.stat().st_size > CONFIG_LIMIT:
        raise InvalidImage(f"invalid archive: {name[:200]} is larger than {CONFIG_LIMIT} bytes")
    return path.read_bytes()


def _inside(folder: Path, name: str) -> Path:
    """The regular file `name`. Old archives link equal layers to each other; no link may lead out.

    Nothing else writes to the folder any more, so looking first and opening later is safe.
    """
    root = folder.resolve()
    try:
        path = (root / name).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise InvalidImage(f"invalid archive: {name[:200]!r} cannot be found") from error
    if not path.is_relative_to(root) or not path.is_file():
        raise InvalidImage(f"invalid archive: {name[:200]!r} is missing")
    return path


def _names(descriptor: Descriptor) -> tuple[str, ...]:
    """The full name if there is one; a bare tag names no repository."""
    name = descriptor.annotations.get(_FULL_NAME) or descriptor.annotations.get(_REF_NAME, "")
    return (_name(name),) if "/" in name or ":" in name else ()


def _name(text: str) -> str:
    try:
        return str(parse_reference(text).without_digest().with_default_tag())
    except InvalidArgument as error:
        raise InvalidImage(f"invalid archive: bad image name {text[:200]!r}") from error
