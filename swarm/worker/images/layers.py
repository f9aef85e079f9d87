"""The unpacked layers of a node, one directory each, shared between images.

In: a layer's tar and the diff id (digest of the plain tar) it must have. Out: a directory for overlayfs.

    layers/<diff id's 64 digits>   record: {"folder", "bytes"}; its rename into place commits the layer
    l/<12 characters>/             the files; the name is short since one mount option names all of them

Invariant: a record names a complete directory. A crash leaves at worst a directory without a record, which
`recover` removes.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from swarm.base.ids import IdSource, new_id
from swarm.base.log import get_logger
from swarm.base.trees import remove_tree
from swarm.worker.images.errors import InvalidImage
from swarm.worker.images.files import sync_folder, write_atomically
from swarm.worker.images.sandbox import UnpackLimits, unpack
from swarm.worker.images.single_flight import SingleFlight

_FOLDER_NAME = 12
_HEX = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 2  # unpacking is bound by one core each

_log = get_logger("images")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    diff_id: str
    folder: Path
    bytes: int


class LayerStore:
    def __init__(self, root: Path, limits: UnpackLimits, ids: IdSource = new_id) -> None:
        self._records = root / "layers"
        self._folders = root / "l"
        self._limits = limits
        self._ids = ids
        self._layers: dict[str, Layer] = {}
        self._flights: SingleFlight[Layer] = SingleFlight()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def recover(self) -> None:
        """Read the records and remove what a crash left. Blocking; call it once, before anything else."""
        for folder in (self._records, self._folders):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._layers = {}
        for record in self._records.iterdir():
            layer = self._read(record)
            if layer is None:
                record.unlink()
            else:
                self._layers[layer.diff_id] = layer
        known = {layer.folder for layer in self._layers.values()}
        for folder in self._folders.iterdir():
            if folder not in known:
                _log.info("images.leftover_removed", folder=str(folder))
                remove_tree(folder)

    def find(self, diff_id: str) -> Layer | None:
        return self._layers.get(diff_id)

    def list(self) -> tuple[Layer, ...]:
        return tuple(self._layers.values())

    async def add(self, diff_id: str, tar: Path, unpacking: Callable[[], None] = lambda: None) -> Layer:
        """Unpack `tar` unless the layer is here; `unpacking` is told when it has to be.

        Raises:
            InvalidImage: the tar is malformed, hostile, or not the layer `diff_id`.
            Temporary: this node's disk is full, or it took too long.
        """
        present = self.find(diff_id)
        return present or await self._flights.run(diff_id, lambda: self._add(diff_id, tar, unpacking))

    async def remove(self, diff_ids: Collection[str]) -> None:
        """Forget the layers, then delete their files."""
        gone = [layer for diff_id in diff_ids if (layer := self._layers.pop(diff_id, None))]
        for layer in gone:
            self._record(layer.diff_id).unlink(missing_ok=True)
        for layer in gone:
            await asyncio.to_thread(remove_tree, layer.folder)

    async def _add(self, diff_id: str, tar: Path, unpacking: Callable[[], None]) -> Layer:
        folder = self._folders / self._ids()[-_FOLDER_NAME:]
        async with self._slots:
            unpacking()
            folder.mkdir()
            folder.chmod(0o755)  # a layer without an entry for its root; the umask must not matter
            try:
                unpacked = await unpack(tar, folder, kind="layer", limits=self._limits)
                if unpacked.diff_id != diff_id:
                    raise InvalidImage(
                        f"layer {diff_id} has the content of {unpacked.diff_id}: it is not unpacked"
                    )
                record = json.dumps({"folder": folder.name, "bytes": unpacked.bytes}).encode()
                sync_folder(self._folders)
                write_atomically(self._record(diff_id), record)
            except BaseException:
                # The program that writes there is gone, so this is bounded by what it wrote.
                await asyncio.to_thread(remove_tree, folder)
                raise
        layer = Layer(diff_id=diff_id, folder=folder, bytes=unpacked.bytes)
        self._layers[diff_id] = layer
        return layer

    def _record(self, diff_id: str) -> Path:
        return self._records / diff_id.removeprefix("sha256:")

    def _read(self, record: Path) -> Layer | None:
        if not _HEX.fullmatch(record.name):
            return None
        try:
            content = json.loads(record.read_bytes())
            folder = self._folders / str(content["folder"])
            size = int(content["bytes"])
        except (ValueError, KeyError, TypeError):
            return None
        if not folder.is_dir():
            return None
        return Layer(diff_id=f"sha256:{record.name}", folder=folder, bytes=size)
