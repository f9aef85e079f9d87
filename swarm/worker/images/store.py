"""The images of one node: load, pull, list, remove, and the layer folders a container is mounted from.

In: archives, references, container ids. Out: `Image` values and paths for overlayfs.

    index.json, configs/   see `catalog.py`         layers/, l/   see `layers.py`
    refs/                  see `references.py`      tmp/          work in progress; emptied at every start

Invariant: an image in the catalog has all its layers; a layer that an image or work in progress needs is
never deleted, nor is an image that a container uses. One process at a time uses a root (`flock`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarm.base.errors import FailedPrecondition, InvalidArgument
from swarm.base.ids import IdSource, new_id
from swarm.base.trees import remove_tree
from swarm.model.image_reference import Reference, parse_reference
from swarm.worker.images.archive import ArchivedImage, read_archive
from swarm.worker.images.catalog import Catalog
from swarm.worker.images.errors import InvalidImage, no_such_image
from swarm.worker.images.image import Image, parse_image
from swarm.worker.images.layers import LayerStore
from swarm.worker.images.manifest import Platform, platform_of
from swarm.worker.images.pull import (
    Distribution,
    Progress,
    Selected,
    Tell,
    describe,
    ignore_progress,
    resolve,
    select,
    short,
)
from swarm.worker.images.references import ContainerReferences
from swarm.worker.images.registry import InsecureRegistries, Registry, RegistryAuth, RegistryLimits
from swarm.worker.images.removal import Removed, plan_removal
from swarm.worker.images.sandbox import UnpackLimits, unpack
from swarm.worker.images.single_flight import SingleFlight


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """`insecure_registries`: private networks or host names spoken to without a verified certificate."""

    insecure_registries: tuple[str, ...] = ()
    unpack: UnpackLimits = field(default_factory=UnpackLimits)
    registry: RegistryLimits = field(default_factory=RegistryLimits)


class ImageStore:
    def __init__(self, root: Path, settings: ImageSettings | None = None, *, ids: IdSource = new_id) -> None:
        self._root = root
        self._settings = settings or ImageSettings()
        self._insecure = InsecureRegistries(self._settings.insecure_registries)
        self._ids = ids
        self._host = platform_of(platform.machine())
        self._catalog = Catalog(root)
        self._layers = LayerStore(root, self._settings.unpack, ids)
        self._containers = ContainerReferences(root / "refs")
        self._pulls: SingleFlight[Image] = SingleFlight()
        self._pinned: Counter[str] = Counter()
        self._lock: int | None = None

    @property
    def host(self) -> Platform:
        return self._host

    def open(self) -> None:
        """Take the root and repair it after whatever ended the last process. Blocking; call it once.

        Raises:
            FailedPrecondition: another process uses the root, or its index cannot be read.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise FailedPrecondition(f"the image store {self._root} is in use by another process") from error
        remove_tree(self._root / "tmp")
        for name in ("tmp", "empty"):
            (self._root / name).mkdir(mode=0o700, exist_ok=True)
        self._layers.recover()
        self._catalog.recover(self._size)
        self._containers.recover()

    def close(self) -> None:
        """Give the root up; what is running in it must have ended."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def list(self) -> tuple[Image, ...]:
        """All images, the newest first."""
        return self._catalog.list()

    def get(self, name_or_id: str) -> Image:
        """By id, name or unique prefix of an id.

        Raises:
            ImageNotFound: `No such image: web:latest`.
        """
        return self._catalog.get(name_or_id)[0]

    def tag(self, source: str, target: str) -> Image:
        """Give the image `source` the name `target`, taking it from whichever image has it."""
        reference = parse_reference(target)
        if reference.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        return self._catalog.name(self.get(source), (str(reference.with_default_tag()),))

    def lower_dirs(self, image: Image) -> tuple[Path, ...]:
        """The folders for overlayfs' `lowerdir`, top first; never empty.

        overlayfs refuses a folder twice: of a repeated layer the topmost counts, which hides the lower one.
        """
        found = [self._layers.find(layer) for layer in reversed(image.layers)]
        if None in found:
            raise InvalidImage(
                f"image {image.short_id} has lost a layer: remove it and pull or load it again"
            )
        folders = tuple(dict.fromkeys(layer.folder for layer in found if layer))
        return folders or (self._root / "empty",)

    def retain(self, image: Image, container_id: str) -> None:
        """Keep `image` until `release(container_id)`, over restarts too. Idempotent.

        Raises:
            ImageNotFound: the image was removed since the caller got it.
        """
        if self._catalog.find(image.id) is None:
            raise no_such_image(image.short_id)
        self._containers.add(container_id, image.id)

    def release(self, container_id: str) -> None:
        """Idempotent."""
        self._containers.remove(container_id)

    def image_of(self, container_id: str) -> Image | None:
        """The image retained for the container, whatever its names mean by now."""
        image_id = self._containers.image_of(container_id)
        return None if image_id is None else self._catalog.find(image_id)

    def retained(self) -> tuple[str, ...]:
        """The containers that hold an image: release those that no longer exist after a restart."""
        return self._containers.containers()

    def layers_size(self) -> int:
        """Bytes on disk of all layers, shared ones counted once."""
        return sum(layer.bytes for layer in self._layers.list())

    async def load(self, source: Path | AsyncIterable[bytes]) -> tuple[Image, ...]:
        """Load every image of an archive (`docker save`, or an OCI layout as tar), plain or compressed.

        Raises:
            InvalidImage: the archive is not what it claims; nothing of it is listed then.
        """
        async with self._workspace() as work:
            if not isinstance(source, Path):
                source = await self._spool(source, work / "archive.tar")
            folder = work / "archive"
            folder.mkdir()
            await unpack(source, folder, kind="archive", limits=self._settings.unpack)
            archived = await asyncio.to_thread(read_archive, folder, self._host)
            parsed = [(parse_image(found.config), found) for found in archived]
            with self._pin(layer for image, _ in parsed for layer in image.layers):
                for image, found in parsed:
                    await self._unpack(_files(image, found), ignore_progress, {})
                return tuple(self._list(image, found.config, found.names) for image, found in parsed)

    async def pull(
        self, reference: str, auth: RegistryAuth | None = None, progress: Tell = ignore_progress
    ) -> Image:
        """Make this node have what the registry now calls `reference`.

        A reference with a digest that is here is answered without the registry. Asked for several times at
        once the work is done once; only the first caller is told about progress.

        Raises:
            ImageNotFound: there is no such image, or no access. Unavailable: the registry does not answer.
            InvalidImage: the content is bad; trying again is no use.
            Temporary: this node's disk is full, or a program is missing.
        """
        wanted = parse_reference(reference).with_default_tag()
        key = (str(wanted), auth.key() if auth else "")
        return await self._pulls.run(key, lambda: self._pull(wanted, auth, progress))

    async def resolve(self, reference: str, auth: RegistryAuth | None = None) -> Distribution:
        """What the registry knows about `reference`; raises as `pull` does and stores nothing."""
        wanted = parse_reference(reference).with_default_tag()
        async with self._workspace() as work:
            registry = self._registry(work)
            return await describe(registry, await resolve(registry, wanted, auth), auth)

    async def remove(self, name_or_id: str, *, force: bool = False) -> tuple[Removed, ...]:
        """Take a name away, and with the last one the image.

        Raises:
            ImageNotFound, ImageInUse.
        """
        image, name = self._catalog.get(name_or_id)
        users = self._containers.users(image.id)
        names = self._catalog.names(image.id)
        removal = plan_removal(image, names, users, name=name, force=force)
        self._catalog.forget_names(*removal.names)
        if removal.delete:
            self._catalog.forget(image.id)
            await self.collect()
        return removal.items

    async def prune(self, *, unused: bool = False) -> tuple[tuple[Removed, ...], int]:
        """Remove images without a tag, or all that no container uses. Returns what went and bytes freed."""
        before = self.layers_size()
        items: list[Removed] = []
        for image in self.list():
            if (unused or not image.repo_tags) and not self._containers.users(image.id):
                items += await self.remove(image.id, force=True)
        return tuple(items), before - self.layers_size()

    async def collect(self) -> None:
        """Delete the layers that nothing needs: of removed images, and of pulls that failed half-way."""
        needed = self._catalog.layers() | set(self._pinned)
        await self._layers.remove(
            [layer.diff_id for layer in self._layers.list() if layer.diff_id not in needed]
        )

    async def _pull(self, wanted: Reference, auth: RegistryAuth | None, tell: Tell) -> Image:
        if wanted.digest and (present := self._catalog.find_reference(wanted)):
            tell(Progress(status=f"Status: Image is up to date for {wanted.familiar()}"))
            return present
        tell(Progress(id=wanted.digest or wanted.tag or "", status=f"Pulling from {wanted.path}"))
        async with self._workspace() as work:
            registry = self._registry(work)
            resolved = await resolve(registry, wanted, auth)
            pinned = wanted.without_digest().with_digest(resolved.digest)
            tag = () if wanted.digest else (str(wanted),)
            names = (f"{wanted.repository}@{resolved.digest}", *tag)
            before = self._catalog.find_reference(pinned)
            if before is not None:
                image = self._catalog.name(before, names)
            else:
                selected = await select(registry, resolved, self._host, auth)
                image = await self._fetch(registry, selected, names, auth, tell)
        tell(Progress(status=f"Digest: {resolved.digest}"))
        news = "Image is up to date for" if before else "Downloaded newer image for"
        tell(Progress(status=f"Status: {news} {wanted.familiar()}"))
        return image

    async def _fetch(
        self,
        registry: Registry,
        selected: Selected,
        names: tuple[str, ...],
        auth: RegistryAuth | None,
        tell: Tell,
    ) -> Image:
        """Download the layers that are not here, unpack them, list the image."""
        blobs = selected.blobs()
        with self._pin(blobs):
            wanted: set[str] = set()
            for diff_id, blob in blobs.items():
                is_here = self._layers.find(diff_id) is not None
                tell(
                    Progress(
                        id=short(blob.digest), status="Already exists" if is_here else "Pulling fs layer"
                    )
                )
                if not is_here:
                    wanted.add(blob.digest)
            if wanted:
                folder = await registry.download(selected.reference, auth, selected.manifest.layers, wanted)
                new = {diff_id: blob.digest for diff_id, blob in blobs.items() if blob.digest in wanted}
                await self._unpack(
                    {diff_id: folder / digest[7:] for diff_id, digest in new.items()}, tell, new
                )
            return self._list(selected.image, selected.config, names)

    async def _unpack(self, files: Mapping[str, Path], tell: Tell, names: Mapping[str, str]) -> None:
        """Unpack several layers; the first failure ends the rest and is the one that is raised.

        `names` are the digests under which progress is told, where they are not the diff ids.
        """

        async def one(diff_id: str, path: Path) -> None:
            name = short(names.get(diff_id, diff_id))
            await self._layers.add(diff_id, path, lambda: tell(Progress(id=name, status="Extracting")))
            tell(Progress(id=name, status="Pull complete"))

        try:
            async with asyncio.TaskGroup() as group:
                for diff_id, path in files.items():
                    group.create_task(one(diff_id, path))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _list(self, image: Image, config: bytes, names: tuple[str, ...]) -> Image:
        size = self._size(image)
        assert size is not None
        return self._catalog.add(replace(image, size=size), config, names)

    def _size(self, image: Image) -> int | None:
        """The bytes of all layers; None when one is not here."""
        layers = [self._layers.find(diff_id) for diff_id in image.layers]
        return None if None in layers else sum(layer.bytes for layer in layers if layer)

    def _registry(self, work: Path) -> Registry:
        return Registry(work, self._insecure, self._settings.registry)

    async def _spool(self, source: AsyncIterable[bytes], path: Path) -> Path:
        """Keep a stream in a file, so that only the sandbox parses it."""
        length = 0
        with path.open("xb") as file:
            async for chunk in source:
                length += len(chunk)
                if length > self._settings.unpack.max_bytes:
                    raise InvalidImage(f"the archive is larger than {self._settings.unpack.max_bytes} bytes")
                await asyncio.to_thread(file.write, chunk)
        return path

    @asynccontextmanager
    async def _workspace(self) -> AsyncIterator[Path]:
        work = self._root / "tmp" / self._ids()
        work.mkdir(mode=0o700)
        try:
            yield work
        finally:
            await asyncio.to_thread(remove_tree, work)

    @contextmanager
    def _pin(self, layers: Iterable[str]) -> Iterator[None]:
        """Keep `layers` from `collect` until the image that they belong to is listed."""
        held = Counter(tuple(layers))
        self._pinned += held
        try:
            yield
        finally:
            self._pinned -= held


def _files(image: Image, archived: ArchivedImage) -> dict[str, Path]:
    if len(image.layers) != len(archived.layers):
        counts = f"{len(image.layers)} layers, {len(archived.layers)} are here"
        raise InvalidImage(f"invalid archive: image {image.short_id} has {counts}")
    return dict(zip(image.layers, archived.layers, strict=True))
