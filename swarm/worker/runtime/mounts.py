"""A container's mounts: what the user asked for in, sources that exist and targets without links out.

Invariants: no path of the image is followed out of its root, and none of a volume out of the volume; what is
mounted on the host for a container lies in its bundle (`mounts/`) and goes with it. Blocking.
Source: docs.docker.com/engine/storage; mount_namespaces(7) for propagation.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from swarm.base.errors import Fatal, SwarmError, Temporary
from swarm.model.types import BindOptions, Mount, MountType, VolumeOptions
from swarm.worker.runtime import kernel
from swarm.worker.runtime.resolved import ResolvedMount
from swarm.worker.volumes import Volume, VolumeStore

MOUNT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system that nobody trusts, and where to keep what is mounted for its container."""

    path: Path
    descriptor: int
    own_mounts: Path


def resolve_mounts(
    asked: dict[str, Mount], anonymous: dict[str, str], root: Root, volumes: VolumeStore
) -> list[ResolvedMount]:
    """`asked` by target; `anonymous` names the volumes that have no name of the user's. Raises: Fatal."""
    resolved = []
    for target, mount in asked.items():
        if not target.startswith("/"):
            raise Fatal(f"invalid mount target {mount.target!r}: must be an absolute path other than /")
        resolved.append(_mount(mount, anonymous.get(target, mount.source), root, volumes))
    return resolved


def propagation_of(mounts: tuple[Mount, ...]) -> str:
    """What the root file system must be for its binds to propagate as asked. Pure."""
    asked = {mount.bind_options.propagation for mount in mounts if mount.bind_options is not None}
    if asked & {"shared", "rshared"}:
        return "shared"
    return "rslave" if asked & {"slave", "rslave"} else "private"


def land(root: Root, target: str, *, directory: bool) -> str:
    """Where a mount at `target` lands in the image. Raises: Fatal."""
    landed = kernel.resolve_target(root.path, root.descriptor, target, directory=directory)
    # Exporters are given the host's /sys in place of their own; an image cannot send a mount there.
    is_meant = landed.startswith("/sys") and landed == os.path.normpath(target)
    if landed == "/" or (landed.split("/")[1] in ("proc", "sys") and not is_meant):
        raise Fatal(f"invalid mount target {target}: it leads to {landed} in the image")
    return landed


def release_mounts(own_mounts: Path) -> None:
    """Unmount all that `resolve_mounts` mounted; missing is fine. Raises: OSError."""
    if not own_mounts.exists():
        return
    prefix = os.path.realpath(own_mounts) + "/"
    mounted = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    for point in reversed([point for text in mounted if (point := _unescaped(text)).startswith(prefix)]):
        kernel.unmount(point)
    for place in own_mounts.iterdir():
        # Never a tree's removal: if a mount were still there, it would be the user's files.
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()
    own_mounts.rmdir()


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _mount(mount: Mount, source: str, root: Root, volumes: VolumeStore) -> ResolvedMount:
    match mount.type:
        case MountType.BIND:
            return _bind(mount, root)
        case MountType.TMPFS:
            return _tmpfs(mount, land(root, mount.target, directory=True))
        case MountType.VOLUME:
            return _volume(mount, source, root, volumes)


def _bind(mount: Mount, root: Root) -> ResolvedMount:
    source = Path(mount.source)
    if not source.is_absolute():
        raise Fatal(
            f'invalid mount config for type "bind": invalid mount path: {mount.source!r} must be absolute'
        )
    asked = mount.bind_options or BindOptions()
    if asked.create_mountpoint:
        source.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        raise Fatal(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    target = land(root, mount.target, directory=source.is_dir())
    kind = "bind" if asked.non_recursive else "rbind"
    # "ro" alone would leave what is mounted below the source writable; "rro" needs a kernel of 5.12 or later.
    is_deep = not asked.non_recursive and not asked.read_only_non_recursive
    read_only = ("ro", "rro") if is_deep else ("ro",)
    options = (kind, asked.propagation or "rprivate", *(read_only if mount.read_only else ("rw",)))
    return ResolvedMount(target=target, source=mount.source, options=options)


def _tmpfs(mount: Mount, target: str) -> ResolvedMount:
    asked = mount.tmpfs_options
    options = ["nosuid", "nodev", "noexec", "ro" if mount.read_only else "rw"]
    options.append(f"mode={(asked.mode if asked else 0) or 0o1777:o}")
    if asked is not None and asked.size_bytes:
        options.append(f"size={asked.size_bytes}")
    return ResolvedMount(target=target, type="tmpfs", options=tuple(options))


def _volume(mount: Mount, source: str, root: Root, volumes: VolumeStore) -> ResolvedMount:
    asked = mount.volume_options or VolumeOptions()
    driver = asked.driver_config
    try:
        volume = volumes.create(source, asked.labels, driver.options if driver else None)
    except SwarmError as error:
        raise Fatal(str(error)) from error
    if asked.subpath:
        path, is_directory = _subpath(volume, asked.subpath, mount, root)
        target = land(root, mount.target, directory=is_directory)
    else:
        target = land(root, mount.target, directory=True)
        if volume.options:
            path = _mount_device(volume, mount, root)
        else:
            path = volumes.use(volume.name) if asked.no_copy else _filled(volume.name, target, root, volumes)
    options = ("rbind", "rprivate", "ro" if mount.read_only else "rw")
    return ResolvedMount(target=target, source=str(path), options=options)


def _filled(name: str, target: str, root: Root, volumes: VolumeStore) -> Path:
    """The volume's directory; at its first use it takes over what the image has at the target."""
    content_fd = kernel.open_in_root(root.descriptor, target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return volumes.use(name, content_fd=content_fd)
    finally:
        os.close(content_fd)


def _mount_device(volume: Volume, mount: Mount, root: Root) -> Path:
    """What the local driver's options (`type`, `device`, `o`) describe, mounted for this container alone."""
    path = _place(root, mount.target)
    path.mkdir(parents=True, exist_ok=True)
    options = volume.options
    argv = ["mount", "-t", options.get("type") or "none"]
    if options.get("o"):
        argv += ["-o", options["o"]]
    argv += ["--", options.get("device") or "none", str(path)]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=MOUNT_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Temporary(f"mounting volume {volume.name} took more than {MOUNT_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()).removeprefix(f"mount: {path}: ").partition(". dmesg(1)")[0]
        raise Fatal(f"failed to mount local volume {volume.name}: {reason}")
    return path


def _subpath(volume: Volume, subpath: str, mount: Mount, root: Root) -> tuple[Path, bool]:
    """The part of a volume, held by a mount of its own: nobody can swap it for a link meanwhile."""
    base = _mount_device(volume, mount, root) if volume.options else volume.path
    base_fd = os.open(base, os.O_PATH | os.O_DIRECTORY)
    try:
        part_fd = kernel.open_in_root(base_fd, "/" + subpath, os.O_PATH)
    except OSError as error:
        reason = (error.strerror or "not there").lower()
        raise Fatal(f"cannot access path {subpath} of volume {volume.name}: {reason}") from error
    finally:
        os.close(base_fd)
    try:
        is_directory = stat.S_ISDIR(os.fstat(part_fd).st_mode)
        place = _place(root, mount.target + "/subpath")
        place.parent.mkdir(exist_ok=True)
        if is_directory:
            place.mkdir(exist_ok=True)
        else:
            place.touch()
        flags = kernel.MS_BIND | kernel.MS_REC
        kernel.mount(source=f"/proc/self/fd/{part_fd}", target=str(place), kind="none", flags=flags)
    finally:
        os.close(part_fd)
    return place, is_directory


def _place(root: Root, target: str) -> Path:
    return root.own_mounts / hashlib.sha256(target.encode()).hexdigest()[:16]
