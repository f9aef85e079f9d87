"""The program that unpacks one tar stream into one directory. It trusts nothing in the stream.

In: a tar on standard input, plain or gzip, and limits as arguments. Out: the files, and one JSON line on
standard output: `{"diff_id", "bytes", "entries"}`, or `{"error": ...}` with exit status 1.

It is run by path, imports the standard library only, and works in two processes. The outer one enters new
mount, network and pid namespaces and changes its root to the directory; it never looks at the stream. The
inner one keeps six capabilities (none for an archive), reads the tar, and cannot name a file outside. Since
it may not write `trusted.*` attributes, it reports opaque directories and the outer one marks them.

Invariant: whatever the stream says, nothing outside the directory changes.
Source: OCI image layer specification (whiteouts), kernel overlayfs documentation (0:0 devices, opaque).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import stat
import sys
import tarfile
import zlib
from collections.abc import Callable
from typing import BinaryIO, NoReturn

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID = 0x00020000, 0x40000000, 0x20000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = (
    1,
    24,
    38,
    47,
    4,
)
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP = 0, 1, 3, 4, 27, 31
LAYER_CAPABILITIES = (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP)
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522

CHUNK = 256 * 1024
MEMORY_LIMIT = 1 << 30  # a header may claim gigabytes: reading it fails with MemoryError
CPU_LIMIT_S = 3600
DEPTH_LIMIT = 256  # deeper trees cannot be removed with plain recursion
RATIO_FROM = 256 << 20  # below this much output no ratio is suspicious
RATIO_LIMIT = 200
TIME_LIMIT = 1 << 33  # seconds; later times do not fit common file systems
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
ATTRIBUTE_KEY = "SCHILY.xattr."
ATTRIBUTES = ("user.", "security.capability", "system.posix_acl_")

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The stream is at fault; the text says which entry and why."""


class Stream:
    """Standard input, decompressed, counted and hashed: what `tarfile` reads."""

    def __init__(self, source: BinaryIO, max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._pending = source.read(CHUNK)
        self._packed = len(self._pending)
        self._gzip = zlib.decompressobj(wbits=31) if self._pending[:2] == b"\x1f\x8b" else None
        self.plain = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end of the stream."""
        chunk = self._inflate(size) if self._gzip else self._take(size)
        self.plain += len(chunk)
        if self.plain > self._max_bytes:
            raise Refused(f"the layer is larger than {self._max_bytes} bytes")
        if self.plain > RATIO_FROM and self.plain > RATIO_LIMIT * self._packed:
            raise Refused(f"the layer expands more than {RATIO_LIMIT} times")
        self._hash.update(chunk)
        return chunk

    def finish(self) -> str:
        """Read what is left (padding) and return the digest of the uncompressed stream."""
        while self.read(CHUNK):
            pass
        return "sha256:" + self._hash.hexdigest()

    def _take(self, size: int) -> bytes:
        if not self._pending:
            self._pending = self._source.read(CHUNK)
            self._packed += len(self._pending)
        chunk, self._pending = self._pending[:size], self._pending[size:]
        return chunk

    def _inflate(self, size: int) -> bytes:
        assert self._gzip is not None
        while True:
            packed = self._take(CHUNK)
            if self._gzip.eof:
                if not packed.strip(b"\0"):
                    return b""
                self._gzip = zlib.decompressobj(wbits=31)
            if not packed:
                raise Refused("the compressed layer ends too early")
            try:
                chunk = self._gzip.decompress(packed, size)
            except zlib.error as error:
                raise Refused(f"the layer is not valid gzip: {error}") from error
            self._pending = (self._gzip.unused_data or self._gzip.unconsumed_tail) + self._pending
            if chunk:
                return chunk


class Unpacker:
    """Applies entries below `/`, which is the layer's directory."""

    def __init__(self, *, layer: bool, max_bytes: int, max_entries: int) -> None:
        self._layer = layer
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._folder_times: dict[str, int] = {}
        self.opaque: set[str] = set()
        self.entries = 0
        self.bytes = 0

    def apply(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        self.entries += 1
        if self.entries > self._max_entries:
            raise Refused(f"the layer has more than {self._max_entries} entries")
        path = self._path(entry.name)
        if path == "/":
            if entry.isdir():
                self._finish(path, entry)
            return
        folder, name = os.path.split(path)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        if self._layer and name.startswith(WHITEOUT):
            self._whiteout(folder, name)
            return
        self._clear(path, entry)
        self._create(tar, entry, path)
        self._finish(path, entry)

    def set_folder_times(self) -> None:
        """Last, since every new file changes its folder's time."""
        for path, seconds in self._folder_times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later entry
                os.utime(path, (seconds, seconds), follow_symlinks=False)

    def _path(self, name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Refused("the path contains ..")
        if len(parts) > DEPTH_LIMIT:
            raise Refused(f"the path is deeper than {DEPTH_LIMIT} directories")
        return "/" + "/".join(parts)

    def _whiteout(self, folder: str, name: str) -> None:
        if name == OPAQUE:
            self.opaque.add(folder)
            return
        if name.startswith(WHITEOUT + WHITEOUT):
            return  # bookkeeping of aufs, which describes no file
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise Refused("the whiteout names no file")
        target = os.path.join(folder, hidden)
        if not os.path.lexists(target):
            os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
        elif os.path.isdir(target) and not os.path.islink(target):
            self.opaque.add(target)  # what lower layers have there is hidden, what this one adds stays

    def _clear(self, path: str, entry: tarfile.TarInfo) -> None:
        """Make room: a later entry replaces an earlier one, but two directories merge."""
        try:
            old = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(old.st_mode):
            if not entry.isdir():
                shutil.rmtree(path)
                self.opaque = {o for o in self.opaque if o != path and not o.startswith(path + "/")}
            return
        os.unlink(path)
        if entry.isdir() and stat.S_ISCHR(old.st_mode) and old.st_rdev == 0:
            self.opaque.add(path)

    def _create(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        if entry.isdir():
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
        elif entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.isreg():
            self._write(tar, entry, path)
        elif not self._layer:
            raise Refused("only files, directories and symbolic links belong in an image archive")
        elif entry.islnk():
            os.link(self._path(entry.linkname), path, follow_symlinks=False)
        elif entry.isfifo():
            os.mkfifo(path, 0o600)
        elif entry.isdev():
            self._device(entry, path)
        else:
            raise Refused(f"the entry's type {entry.type!r} is unknown")

    def _device(self, entry: tarfile.TarInfo, path: str) -> None:
        device = os.makedev(entry.devmajor, entry.devminor)
        if entry.ischr() and device == 0:
            raise Refused("a 0:0 device would be a whiteout in disguise")
        os.mknod(path, 0o600 | (stat.S_IFCHR if entry.ischr() else stat.S_IFBLK), device)

    def _write(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        content = tar.extractfile(entry)
        assert content is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            while chunk := content.read(min(CHUNK, entry.size or 1)):  # small files need no large buffer
                file.write(chunk)
                self.bytes += len(chunk)
                if self.bytes > self._max_bytes:  # holes of sparse files are not in the stream
                    raise Refused(f"the layer's files are larger than {self._max_bytes} bytes")

    def _finish(self, path: str, entry: tarfile.TarInfo) -> None:
        """Owner first: changing it clears set-user-id bits and capabilities."""
        if not self._layer or entry.islnk():
            return
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not entry.issym():
            os.chmod(path, entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            if key.startswith(ATTRIBUTE_KEY):
                self._attribute(path, key.removeprefix(ATTRIBUTE_KEY), value)
        seconds = min(max(int(entry.mtime), 0), TIME_LIMIT)
        if entry.isdir():
            self._folder_times[path] = seconds
        else:
            os.utime(path, (seconds, seconds), follow_symlinks=False)

    def _attribute(self, path: str, name: str, value: str) -> None:
        if name.startswith("trusted."):
            raise Refused(f"the extended attribute {name} is not allowed in an image")
        if not name.startswith(ATTRIBUTES) or name.startswith("user.overlay."):
            return  # labels of the host that built the image
        try:
            os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def unpack(source: BinaryIO, unpacker: Unpacker, max_bytes: int) -> dict[str, object]:
    """Apply the whole stream and report; an error names the entry it arose at."""
    stream = Stream(source, max_bytes)
    name = ""
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:  # type: ignore[call-overload]  # read() is all that r| needs
            while (entry := tar.next()) is not None:
                name = entry.name
                if entry.size < 0:
                    raise Refused("the size is negative")
                unpacker.apply(tar, entry)
                tar.members = []  # tarfile remembers every entry; a million of them is too many
                name = f"after {entry.name}"
        name = ""
        unpacker.set_folder_times()
        digest = stream.finish()
    except (
        Refused,
        OSError,
        ValueError,
        OverflowError,
        RecursionError,
        MemoryError,
        tarfile.TarError,
    ) as error:
        where = f"entry {name[:200]!r}: " if name else ""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        return {"error": where + (reason or "not enough memory"), "disk_full": full}
    return {
        "diff_id": digest,
        "bytes": unpacker.bytes,
        "entries": unpacker.entries,
        "opaque": sorted(unpacker.opaque),
    }


def confine(folder: str, max_bytes: int, parent: int) -> None:
    """Enter new namespaces, make `folder` the root. The next fork is process 1 of its own pid namespace."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be followed
    os.closerange(3, 1 << 16)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU_LIMIT_S),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_AS, MEMORY_LIMIT),
        (resource.RLIMIT_FSIZE, max_bytes),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID))
    _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    os.chroot(folder)
    os.chdir("/")
    os.umask(0o022)


def drop_capabilities(keep: tuple[int, ...]) -> None:
    """Keep only `keep`, for this process and all it could ever execute."""
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in keep and _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # past the last capability this kernel knows
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    mask = sum(1 << capability for capability in keep)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def run_inner(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Run `work` in a child and return what it reports through a pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        watch = select.poll()
        watch.register(writer, 0)  # for its end alone
        if watch.poll(0):
            os._exit(1)  # nobody reads: the parent died before it could be followed
        with open(writer, "w") as out:
            json.dump(work(), out)
        os._exit(0)
    os.close(writer)
    with open(reader) as answers:
        text = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0 or not text:
        return {"error": f"the unpacking process ended with status {status}"}
    report: dict[str, object] = json.loads(text)
    return report


def mark_opaque(report: dict[str, object]) -> None:
    """`/` is the layer, so these paths cannot lead out, whatever links they cross."""
    paths = report.pop("opaque", [])
    assert isinstance(paths, list)
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later entry
            os.setxattr(path, OPAQUE_ATTRIBUTE, b"y", follow_symlinks=False)


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kind", choices=("layer", "archive"), required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--max-entries", type=int, required=True)
    options = parser.parse_args()
    layer = options.kind == "layer"
    "".encode("idna")  # loads the codec modules that the new root does not have

    def work() -> dict[str, object]:
        drop_capabilities(LAYER_CAPABILITIES if layer else ())
        unpacker = Unpacker(layer=layer, max_bytes=options.max_bytes, max_entries=options.max_entries)
        return unpack(sys.stdin.buffer, unpacker, options.max_bytes)

    try:
        confine(options.folder, options.max_bytes, options.parent)
        report = run_inner(work)
        mark_opaque(report)
        if layer and "error" not in report:
            root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
            _check(_libc.syncfs(root))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        report = {"error": f"unpacking: {error.strerror}", "disk_full": full}
    print(json.dumps(report), flush=True)
    os._exit(1 if "error" in report else 0)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
