from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from swarm.base.errors import InvalidArgument
from swarm.lab.demo_image import Entry, Recipe, build, layer_tar, write_archive


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    entries = (Entry(path="b", content=b"1"), Entry(path="a"))
    assert layer_tar(entries) == layer_tar(reversed(entries))
    digests = set()
    for name in ("one.tar", "two.tar"):
        write_archive(Recipe(layers=(entries,), cmd=("x",)), "x:1", tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="choose busybox, web or nginx"):
        build("mysql", tmp_path / "x.tar")
