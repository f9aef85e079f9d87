"""Volumes, and paths in a root file system that is not trusted."""

from __future__ import annotations

import os

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import Fatal, InvalidArgument, NotFound
from swarm.worker.runtime import kernel
from swarm.worker.runtime.mounts import Root, land
from swarm.worker.volumes import VolumeStore


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("inside")
    (root / "up").symlink_to("../../../outside")
    (root / "absolute").symlink_to("/etc")
    (root / "escape").symlink_to(tmp_path / "outside" / "secret")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield root, fd
    os.close(fd)


def test_links_are_followed_inside_the_root_only(root):
    _, fd = root
    assert kernel.read_in_root(fd, "/absolute/passwd") == b"inside"
    assert kernel.read_in_root(fd, "/escape") is None
    assert kernel.read_in_root(fd, "/up/secret") is None
    assert kernel.read_in_root(fd, "/etc") is None


def test_a_mount_target_is_made_where_it_lands(root):
    path, fd = root
    assert kernel.resolve_target(path, fd, "/absolute/new/deep", directory=True) == "/etc/new/deep"
    assert (path / "etc/new/deep").is_dir()
    assert kernel.resolve_target(path, fd, "/etc/hosts", directory=False) == "/etc/hosts"
    assert (path / "etc/hosts").is_file()
    assert kernel.resolve_target(path, fd, "/absolute", directory=True) == "/etc"
    assert kernel.resolve_target(path, fd, "/../..", directory=True) == "/"


def test_a_mount_covers_sys_only_if_its_user_says_so(root):
    path, fd = root
    inside = Root(path, fd, path.parent / "own")
    (path / "sent").symlink_to("/sys")
    assert land(inside, "/sys", directory=True) == "/sys"
    assert land(inside, "/sys/fs/", directory=True) == "/sys/fs"
    for target in ("/sent", "/sent/fs", "/proc", "/etc/..", "/proc/sys"):
        with pytest.raises(Fatal, match="invalid mount target"):
            land(inside, target, directory=True)


def test_a_dangling_link_is_no_way_out(root):
    path, fd = root
    with pytest.raises(OSError, match=r"File exists"):
        kernel.resolve_target(path, fd, "/up/x", directory=True)
    with pytest.raises(OSError, match=r"File exists"):
        kernel.resolve_target(path, fd, "/escape", directory=False)
    assert [entry.name for entry in (path.parent / "outside").iterdir()] == ["secret"]


def test_descriptors_do_not_leak(root):
    path, fd = root
    before = len(os.listdir("/proc/self/fd"))
    for target in ("/a/b/c", "/etc/passwd/x", "/up/x"):
        try:
            kernel.resolve_target(path, fd, target, directory=True)
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def volumes(tmp_path):
    return VolumeStore(tmp_path / "volumes", FakeClock())


def test_volumes_are_made_once_listed_and_removed(volumes):
    assert volumes.list() == []
    made = volumes.create("db", {"a": "b"})
    assert volumes.create("db") == made
    assert made.labels == {"a": "b"}
    assert volumes.get("db") == made
    assert volumes.list() == [made]
    volumes.remove("db")
    volumes.remove("db")
    assert not made.path.parent.exists()
    with pytest.raises(NotFound, match="volume db not found"):
        volumes.get("db")


@pytest.mark.parametrize("name", ["", "x", "../up", "a/b", ".hidden", "a" * 256, "a\nb"])
def test_names_that_are_paths_are_refused(volumes, name):
    with pytest.raises(InvalidArgument, match="invalid characters for a local volume name"):
        volumes.create(name)
    with pytest.raises(NotFound):
        volumes.get(name)


def test_an_empty_new_volume_takes_over_the_images_content_once(volumes, tmp_path):
    image = tmp_path / "image"
    (image / "sub").mkdir(parents=True)
    (image / "sub" / "file").write_text("hello")
    (image / "sub" / "file").chmod(0o4640)
    (image / "link").symlink_to("/etc/passwd")
    os.mkfifo(image / "pipe")
    image.chmod(0o750)
    fd = os.open(image, os.O_RDONLY | os.O_DIRECTORY)
    try:
        path = volumes.use("data", content_fd=fd)
        assert (path / "sub/file").read_text() == "hello"
        assert (path / "sub/file").stat().st_mode & 0o7777 == 0o4640
        assert os.readlink(path / "link") == "/etc/passwd"
        assert not (path / "pipe").exists()
        assert path.stat().st_mode & 0o7777 == 0o750
        (path / "link").unlink()
        (path / "sub/file").unlink()
        (path / "sub").rmdir()
        assert volumes.use("data", content_fd=fd) == path
        assert list(path.iterdir()) == []
    finally:
        os.close(fd)


def test_a_copy_cut_short_is_made_again(volumes, tmp_path):
    volume = volumes.create("data")
    (volume.path.parent / "_data.new").mkdir()
    (volume.path.parent / "_data.new" / "half").write_text("x")
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "whole").write_text("y")
    fd = os.open(tmp_path / "image", os.O_RDONLY | os.O_DIRECTORY)
    try:
        path = volumes.use("data", content_fd=fd)
    finally:
        os.close(fd)
    assert [entry.name for entry in path.iterdir()] == ["whole"]
