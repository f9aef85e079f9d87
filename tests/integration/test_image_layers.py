"""Layers, well-formed and hostile: what they become, and that nothing beside them changes."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from swarm.worker.images.errors import InvalidImage
from swarm.worker.images.layers import LayerStore
from swarm.worker.images.sandbox import UnpackLimits

pytestmark = pytest.mark.root


def snapshot(folder: Path) -> str:
    """Everything about a tree that an unpacking tar could change."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        facts = (
            path,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            status.st_mtime_ns,
            content,
        )
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    content = bytes(more.pop("content", b""))  # type: ignore[call-overload]
    entry.size = len(content)
    for key, value in more.items():
        setattr(entry, key, value)
    return entry, content


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _diff_id(tar: bytes) -> str:
    with contextlib.suppress(OSError):
        tar = gzip.decompress(tar)
    return "sha256:" + hashlib.sha256(tar).hexdigest()


class Bench:
    """A layer store beside a tree that must not change."""

    def __init__(self, folder: Path, limits: UnpackLimits) -> None:
        self.outside = folder / "outside"
        (self.outside / "deep").mkdir(parents=True)
        (self.outside / "secret").write_text("mine")
        (self.outside / "deep" / "file").write_text("mine too")
        self._folder = folder
        self.layers = LayerStore(folder / "images", limits)
        self.layers.recover()

    async def unpack(self, tar: bytes, diff_id: str | None = None) -> Path:
        path = self._folder / "layer.tar"
        path.write_bytes(tar)
        before = snapshot(self.outside)
        try:
            return (await self.layers.add(diff_id or _diff_id(tar), path)).folder
        finally:
            assert snapshot(self.outside) == before

    def leftovers(self) -> list[Path]:
        return list((self._folder / "images" / "l").iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    limits = UnpackLimits(max_bytes=64 << 20, max_entries=2000, timeout_s=60)
    return Bench(tmp_path, limits)


class TestHostileLayers:
    async def test_paths_that_leave_are_refused_by_name(self, bench: Bench) -> None:
        for name in ("../outside/secret", "a/../../../outside/secret", "./../x", "a/.wh..."):
            with pytest.raises(InvalidImage, match=r"archive: entry '"):
                await bench.unpack(packed(member(name, content=b"evil")))
        assert bench.leftovers() == []

    async def test_absolute_names_stay_inside(self, bench: Bench) -> None:
        target = bench.outside / "secret"
        folder = await bench.unpack(packed(member(str(target), content=b"evil")))
        assert (folder / str(target)[1:]).read_bytes() == b"evil"

    async def test_links_do_not_lead_out(self, bench: Bench) -> None:
        out, up = str(bench.outside), "../" * 12
        attacks = (
            [member("a", tarfile.SYMTYPE, linkname=out), member("a/secret", content=b"evil")],
            [member("a", tarfile.SYMTYPE, linkname=up + out[1:]), member("a/secret", content=b"evil")],
            [member("a", tarfile.SYMTYPE, linkname=out + "/secret"), member("a", content=b"evil")],
            [member("a", tarfile.SYMTYPE, linkname=out), member("a/.wh.secret")],
            [member("a", tarfile.SYMTYPE, linkname=out), member("a/.wh..wh..opq")],
            [member("a", tarfile.SYMTYPE, linkname=out), member("a", tarfile.DIRTYPE, mode=0o777)],
            [member("a", tarfile.SYMTYPE, linkname=out), member("a/deep", tarfile.SYMTYPE, linkname="/")],
            [member("h", tarfile.LNKTYPE, linkname=out + "/secret"), member("h", content=b"evil")],
            [member("h", tarfile.LNKTYPE, linkname=up + out[1:] + "/secret")],
        )
        for attack in attacks:
            with contextlib.suppress(InvalidImage):  # refused or kept inside: `unpack` checks the tree
                await bench.unpack(packed(*attack))

    async def test_a_chain_longer_than_path_max(self, bench: Bench) -> None:
        """The shape of CVE-2025-4517: links that expand beyond PATH_MAX, then one step up and out."""
        members, path = [], ""
        for letter in "abcdefghijklmnop":
            members.append(member(path + "d" * 200, tarfile.DIRTYPE, mode=0o755))
            members.append(member(path + letter, tarfile.SYMTYPE, linkname="d" * 200))
            path += letter + "/"
        long = "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/" + "l" * 254
        members += [member(long, tarfile.SYMTYPE, linkname="../" * 16)]
        members += [member("escape", tarfile.SYMTYPE, linkname=long + "/../.." + str(bench.outside))]
        members += [
            member("escape/secret", content=b"evil"),
            member("flag", tarfile.LNKTYPE, linkname="escape/secret"),
        ]
        with pytest.raises(InvalidImage, match=r"archive: entry '"):
            await bench.unpack(packed(*members))

    async def test_limits(self, bench: Bench) -> None:
        crowd = packed(*(member(f"f{n}") for n in range(2001)))
        deep = packed(member("/".join(["d"] * 300), tarfile.DIRTYPE))
        bomb = gzip.compress(packed(member("zeros", content=bytes(65 << 20))), 9)
        sparse = member(
            "holes",
            pax_headers={
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.realsize": "1000000000000",
            },
        )
        sparse[0].size = 512
        holes = packed((sparse[0], b"1\n999999999999\n1\n".ljust(512, b"\0")))
        for tar, reason in (
            (crowd, "more than 2000 entries"),
            (deep, "deeper than 256"),
            (bomb, "larger than"),
            (holes, "larger than|[Ff]ile too large"),
        ):
            with pytest.raises(InvalidImage, match=reason):
                await bench.unpack(tar)
        assert bench.leftovers() == []

    async def test_lying_headers(self, bench: Bench) -> None:
        huge_header = member("PaxHeader", tarfile.XHDTYPE)[0]
        huge_header.size = 1 << 40
        negative = bytearray(packed(member("a", content=b"x" * 600)))
        negative[124:136] = b"\xff" * 12
        checksum = sum(negative[:148]) + 8 * 32 + sum(negative[156:512])
        negative[148:156] = f"{checksum:06o}\0 ".encode()
        for tar in (huge_header.tobuf(), bytes(negative), b"", b"x" * 2000, b"\x1f\x8b" + b"x" * 50):
            with pytest.raises(InvalidImage):
                await bench.unpack(tar)
        assert bench.leftovers() == []

    async def test_overlay_attributes_and_disguised_whiteouts_are_refused(self, bench: Bench) -> None:
        opaque = member("a", tarfile.DIRTYPE, pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})
        redirect = member("a", tarfile.DIRTYPE, pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})
        whiteout = member("a", tarfile.CHRTYPE, devmajor=0, devminor=0)
        for attack in (opaque, redirect, whiteout):
            with pytest.raises(InvalidImage, match=r"archive: entry 'a': "):
                await bench.unpack(packed(attack))

    async def test_the_wrong_content_is_not_the_layer(self, bench: Bench) -> None:
        with pytest.raises(InvalidImage, match="has the content of"):
            await bench.unpack(packed(member("a")), diff_id="sha256:" + "0" * 64)
        assert bench.leftovers() == []


class TestLayerMeaning:
    async def test_whiteouts_become_overlayfs_own(self, bench: Bench) -> None:
        folder = await bench.unpack(
            packed(
                member("d", tarfile.DIRTYPE, mode=0o750),
                member("d/.wh..wh..opq"),
                member("d/new", content=b"1"),
                member(".wh.gone"),
                member(".wh.was-file"),
                member("was-file", tarfile.DIRTYPE, mode=0o755),
                member(".wh..wh.aufs"),
            )
        )
        gone = (folder / "gone").lstat()
        assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev) == (True, 0)
        assert os.getxattr(folder / "d", "trusted.overlay.opaque") == b"y"
        assert os.getxattr(folder / "was-file", "trusted.overlay.opaque") == b"y"
        assert sorted(p.name for p in folder.iterdir()) == ["d", "gone", "was-file"]
        assert stat.S_IMODE((folder / "d").stat().st_mode) == 0o750

    async def test_owners_modes_links_and_devices_are_kept(self, bench: Bench) -> None:
        capability = "\x01\x00\x00\x02\x00\x04\x00\x00" + "\x00" * 12
        folder = await bench.unpack(
            packed(
                member("ping", content=b"#!", mode=0o4755, uid=7, gid=8, mtime=1000),
                member("same", tarfile.LNKTYPE, linkname="./ping"),
                member("capable", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability}),
                member("pipe", tarfile.FIFOTYPE, mode=0o622),
                member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
                member("dangling", tarfile.SYMTYPE, linkname="/nowhere"),
                member("implied/folder/file", content=b"1", mode=0o644),
            )
        )
        ping = (folder / "ping").lstat()
        assert (stat.S_IMODE(ping.st_mode), ping.st_uid, ping.st_gid, ping.st_mtime) == (0o4755, 7, 8, 1000)
        assert (folder / "same").lstat().st_ino == ping.st_ino
        assert os.getxattr(folder / "capable", "security.capability") == capability.encode("latin-1")
        assert stat.S_ISFIFO((folder / "pipe").lstat().st_mode)
        assert (folder / "null").lstat().st_rdev == os.makedev(1, 3)
        assert os.readlink(folder / "dangling") == "/nowhere"
        assert stat.S_IMODE((folder / "implied").stat().st_mode) == 0o755

    async def test_block_devices_are_kept_as_nodes(self, bench: Bench) -> None:
        """What may be opened is the matter of the container's cgroup."""
        folder = await bench.unpack(
            packed(member("loop0", tarfile.BLKTYPE, devmajor=7, devminor=0, mode=0o660))
        )
        assert stat.S_ISBLK((folder / "loop0").lstat().st_mode)
