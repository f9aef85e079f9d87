from __future__ import annotations

import os

from swarm.base.trees import remove_tree


def test_a_tree_deeper_than_any_stack_goes_and_no_link_is_followed(tmp_path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(kept)
    folder = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=folder)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    remove_tree(tree)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["kept"]
    assert (kept / "file").exists()


def test_a_file_a_link_and_nothing(tmp_path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for name in ("link", "file", "missing"):
        remove_tree(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
