"""A container's directory: root file system mounted, files written, mounts resolved, config.json in place.

In: a `ContainerConfig`. Out: `<state>/containers/<id>` as an OCI bundle, and `<run>/containers/<id>` for
what must not survive a reboot (pid files, exit status, conmon's messages) or get to a disk: config.json,
which has the environment, and to which the bundle only links. Invariants: every step may be repeated after a
kill -9 at any point; no path of the image is followed out of its root; what this module made for a container,
`remove` takes away. Blocking: callers use `asyncio.to_thread`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from swarm.base.errors import Fatal
from swarm.base.trees import remove_tree
from swarm.model.types import Mount, MountType
from swarm.worker.logs import encode_policy
from swarm.worker.runtime import kernel
from swarm.worker.runtime.config import ContainerConfig, check_config, hosts_file, resolv_conf
from swarm.worker.runtime.delivery import deliver, take_back
from swarm.worker.runtime.devices import all_devices, find_devices
from swarm.worker.runtime.exec_spec import ExecConfig, exec_process
from swarm.worker.runtime.mounts import Root, land, propagation_of, release_mounts, resolve_mounts
from swarm.worker.runtime.resolved import HostFacts, Resolved, ResolvedMount, User
from swarm.worker.runtime.rights import rights_of
from swarm.worker.runtime.spec import INIT_PATH, oci_spec
from swarm.worker.runtime.users import resolve_user
from swarm.worker.volumes import VolumeStore

_PREFLIGHT = ("dev", "proc", "sys", "etc")


@dataclass(frozen=True, slots=True)
class BundlePaths:
    """Where everything of one container lies."""

    bundle: Path
    run: Path
    exits: Path

    @property
    def rootfs(self) -> Path:
        return self.bundle / "rootfs"

    @property
    def log(self) -> Path:
        return self.bundle / "log"

    @property
    def config(self) -> Path:
        return self.run / "config.json"

    @property
    def pid(self) -> Path:
        return self.run / "pid"

    @property
    def conmon_pid(self) -> Path:
        return self.run / "conmon.pid"

    @property
    def conmon_messages(self) -> Path:
        return self.run / "conmon.err"

    @property
    def exit_file(self) -> Path:
        return self.run / "exit"

    @property
    def oom_file(self) -> Path:
        return self.run / "oom"

    @property
    def anonymous_volumes(self) -> Path:
        return self.bundle / "anonymous-volumes"

    @property
    def own_mounts(self) -> Path:
        """What is mounted on the host for this container."""
        return self.bundle / "mounts"

    @property
    def delivered(self) -> Path:
        """Secrets and configs: a file system in memory, while the container has any."""
        return self.run / "delivered"

    @property
    def log_policy(self) -> Path:
        return self.bundle / "log.json"


class Bundles:
    """The bundles of a host."""

    def __init__(self, *, state_dir: Path, run_dir: Path, volumes: VolumeStore, host: HostFacts) -> None:
        self.containers_dir = state_dir / "containers"
        self.run_dir = run_dir / "containers"
        self.exits_dir = run_dir / "exits"
        self._volumes = volumes
        self._host = host
        self._filters: dict[frozenset[str], str] = {}

    def paths(self, container_id: str) -> BundlePaths:
        return BundlePaths(self.containers_dir / container_id, self.run_dir / container_id, self.exits_dir)

    def ids(self) -> set[str]:
        """Every container that left a trace here."""
        found: set[str] = set()
        for parent in (self.containers_dir, self.run_dir):
            with suppress(FileNotFoundError):
                found.update(entry.name for entry in parent.iterdir() if entry.is_dir())
        return found

    def make_directories(self) -> None:
        for directory in (self.containers_dir, self.run_dir, self.exits_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def prepare(self, config: ContainerConfig) -> BundlePaths:
        """Build the bundle of a container that does not exist.

        Raises:
            Fatal: the image, a mount or the user cannot be had as asked.
        """
        check_config(config)
        paths = self.paths(config.id)
        for directory in (paths.bundle, paths.run):
            directory.mkdir(mode=0o700, exist_ok=True)
        _mount_rootfs(paths, config.lower_dirs)
        root_fd = os.open(paths.rootfs, os.O_PATH | os.O_DIRECTORY)
        try:
            _preflight(paths.rootfs)
            os.close(kernel.make_dirs_in_root(root_fd, config.cwd))
            resolved = self._resolve(config, paths, Root(paths.rootfs, root_fd, paths.own_mounts))
        except OSError as error:
            raise Fatal(
                f"cannot prepare the container's files: {error.strerror}: {error.filename}"
            ) from error
        finally:
            os.close(root_fd)
        rights = rights_of(config, self._host)
        known = self._filters.get(rights.capabilities, "") if rights.has_default_seccomp else ""
        text = json.dumps(oci_spec(config, resolved, self._host, seccomp_bpf=known))
        _write(paths.config, text)
        link = paths.bundle / paths.config.name
        link.unlink(missing_ok=True)
        link.symlink_to(paths.config)
        _write(paths.log_policy, encode_policy(config.log))
        return paths

    def keep_filter(self, config: ContainerConfig, compiled: str) -> None:
        """Remember the seccomp filter that the runtime compiled, for containers of the same rights."""
        rights = rights_of(config, self._host)
        if compiled and rights.has_default_seccomp:
            self._filters.setdefault(rights.capabilities, compiled)

    def exec_process(self, container_id: str, config: ExecConfig) -> dict[str, object]:
        """The OCI process that runs `config` in a container that is there. Raises: Fatal."""
        paths = self.paths(container_id)
        process = json.loads((paths.bundle / "config.json").read_text())["process"]
        if not config.user:
            return exec_process(process, config, None)
        root_fd = os.open(paths.rootfs, os.O_PATH | os.O_DIRECTORY)
        try:
            return exec_process(process, config, find_user(root_fd, config.user))
        finally:
            os.close(root_fd)

    def take_back(self, container_id: str) -> None:
        """Forget the secrets and configs of a container that has ended. Raises: OSError."""
        take_back(self.paths(container_id).delivered)

    def remove(self, container_id: str) -> None:
        """Take away the bundle, mount and anonymous volumes of a dead container. Missing is fine."""
        paths = self.paths(container_id)
        _unmount(paths.rootfs)
        take_back(paths.delivered)
        release_mounts(paths.own_mounts)
        with suppress(FileNotFoundError):
            for name in paths.anonymous_volumes.read_text().split():
                self._volumes.remove(name)
        (paths.exits / container_id).unlink(missing_ok=True)
        for directory in (paths.run, paths.bundle):
            remove_tree(directory)

    def _resolve(self, config: ContainerConfig, paths: BundlePaths, root: Root) -> Resolved:
        mounts = (
            *self._files(config, paths, root),
            *self._init(config, root),
            *self._mounts(config, paths, root),
            *deliver(config.files, paths.delivered, root),
        )
        return Resolved(
            rootfs=paths.rootfs,
            user=find_user(root.descriptor, config.user, config.groups),
            mounts=mounts,
            devices=(*(all_devices() if config.privileged else ()), *find_devices(config.devices)),
            propagation=propagation_of(config.mounts),
        )

    def _files(self, config: ContainerConfig, paths: BundlePaths, root: Root) -> list[ResolvedMount]:
        """/etc/hosts and its kin: ours, bound over whatever the image has there."""
        contents = {
            "/etc/hosts": hosts_file(config),
            "/etc/resolv.conf": resolv_conf(config),
            "/etc/hostname": config.host_name + "\n",
        }
        mounts = []
        for target, text in contents.items():
            source = paths.bundle / Path(target).name
            source.write_text(text)
            source.chmod(0o644)
            landed = land(root, target, directory=False)
            options = ("bind", "rprivate", *(("ro",) if config.read_only else ()))
            mounts.append(ResolvedMount(target=landed, source=str(source), options=options))
        return mounts

    def _mounts(self, config: ContainerConfig, paths: BundlePaths, root: Root) -> list[ResolvedMount]:
        asked = {mount.target.rstrip("/"): mount for mount in config.mounts}
        for target in config.image_volumes:
            asked.setdefault(target.rstrip("/"), Mount(type=MountType.VOLUME, target=target))
        anonymous = {
            target: hashlib.sha256(f"{config.id}:{target}".encode()).hexdigest()
            for target, mount in asked.items()
            if mount.type is MountType.VOLUME and not mount.source
        }
        if anonymous:
            # Written down before they exist, so that a crash leaves none behind.
            _write(paths.anonymous_volumes, "\n".join(anonymous.values()))
        return resolve_mounts(asked, anonymous, root, self._volumes)

    def _init(self, config: ContainerConfig, root: Root) -> list[ResolvedMount]:
        if not config.init:
            return []
        if self._host.init is None:
            raise Fatal("this node has no init to run as process 1: install the package catatonit")
        landed = land(root, INIT_PATH, directory=False)
        options = ("bind", "rprivate", "ro")
        return [ResolvedMount(target=landed, source=str(self._host.init), options=options)]


def _preflight(rootfs: Path) -> None:
    """An image whose /dev or /proc is a link would have the runtime mount onto the host (CVE-2026-47766)."""
    for name in _PREFLIGHT:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(rootfs / name).st_mode):
                raise Fatal(f"the image is refused: its /{name} is not a directory")


def find_user(root_fd: int, user: str, groups: tuple[str, ...] = ()) -> User:
    """The user that `user` names in the image. Raises: Fatal."""
    passwd = kernel.read_in_root(root_fd, "/etc/passwd") or b""
    group = kernel.read_in_root(root_fd, "/etc/group") or b""
    return resolve_user(user, passwd=passwd, group=group, groups=groups)


def _mount_rootfs(paths: BundlePaths, lower_dirs: Iterable[Path]) -> None:
    """Mount the layers with a fresh upper directory; a mount left by an earlier try is replaced."""
    _unmount(paths.rootfs)
    for name in ("upper", "work"):
        remove_tree(paths.bundle / name)
        (paths.bundle / name).mkdir(mode=0o755)
    paths.rootfs.mkdir(mode=0o755, exist_ok=True)
    with ExitStack() as stack:
        # By descriptor: 127 layers by path would not fit into the page that mount(2) takes.
        lowers = []
        for directory in lower_dirs:
            descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            lowers.append(f"/proc/self/fd/{descriptor}")
        options = f"lowerdir={':'.join(lowers)},upperdir={paths.bundle}/upper,workdir={paths.bundle}/work"
        try:
            # A container's own layer ends with it, so it is never worth a sync of the whole disk at unmount.
            _overlay(paths.rootfs, options + ",volatile")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _overlay(paths.rootfs, options)


def _overlay(target: Path, options: str) -> None:
    kernel.mount(source="overlay", target=str(target), kind="overlay", options=options)


def _unmount(rootfs: Path) -> None:
    with suppress(FileNotFoundError):
        while os.path.ismount(rootfs):
            kernel.unmount(str(rootfs))


def _write(path: Path, text: str) -> None:
    """Whole or not at all, for a reader after a kill."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.rename(path)
