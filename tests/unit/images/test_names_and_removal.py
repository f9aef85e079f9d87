from __future__ import annotations

import json

import pytest

from swarm.base.errors import FailedPrecondition
from swarm.model.image_reference import parse_reference
from swarm.worker.images.errors import ImageInUse
from swarm.worker.images.image import Image, parse_image
from swarm.worker.images.index import Index, decode_index, encode_index
from swarm.worker.images.removal import Removal, plan_removal

IMAGE: Image = parse_image(json.dumps({"rootfs": {"diff_ids": []}}).encode())
OTHER = "sha256:" + "cd" * 32
WEB = "docker.io/library/web:latest"
WEB_DIGEST = "docker.io/library/web@sha256:" + "ab" * 32


def test_a_tag_moves_and_leaves_the_old_image_listed() -> None:
    index = Index().with_image(IMAGE.id).with_image(OTHER).with_tag(WEB, IMAGE.id).with_tag(WEB, OTHER)
    assert index.tags_of(IMAGE.id) == ()
    assert index.tags_of(OTHER) == (WEB,)
    assert index.without_image(OTHER) == Index().with_image(IMAGE.id)


def test_the_index_survives_the_disk() -> None:
    index = Index().with_image(IMAGE.id).with_tag(WEB, IMAGE.id).with_digest(WEB_DIGEST, IMAGE.id)
    assert decode_index(encode_index(index)) == index


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 2, "images": [], "tags": {}, "digests": {}}'])
def test_a_foreign_index_is_refused(content: bytes) -> None:
    with pytest.raises(FailedPrecondition, match="image index"):
        decode_index(content)


def planned(
    name: str | None, names: tuple[str, ...], users: tuple[str, ...] = (), force: bool = False
) -> Removal:
    reference = parse_reference(name) if name else None
    return plan_removal(IMAGE, names, users, name=reference, force=force)


def test_the_last_tag_takes_the_image_with_it() -> None:
    removal = planned("web", (WEB, WEB_DIGEST))
    assert removal.delete
    assert [item.name for item in removal.items] == [
        "web:latest",
        WEB_DIGEST.removeprefix("docker.io/library/"),
        IMAGE.id,
    ]


def test_another_tag_keeps_the_image() -> None:
    removal = planned("web:2", (WEB, "docker.io/library/web:2"), users=("c1",))
    assert not removal.delete
    assert removal.names == ("docker.io/library/web:2",)


def test_a_container_keeps_the_image() -> None:
    with pytest.raises(
        ImageInUse, match=r'unable to remove repository reference "web:latest" \(must force\) - container c1'
    ):
        planned("web", (WEB,), users=("c1",))
    forced = planned("web", (WEB,), users=("c1",), force=True)
    assert (forced.names, forced.delete) == ((WEB,), False)
    for force in (False, True):
        with pytest.raises(ImageInUse, match="cannot be forced"):
            planned(None, (WEB,), users=("c1",), force=force)


def test_an_id_in_several_repositories_must_be_forced() -> None:
    names = (WEB, "docker.io/library/other:1")
    with pytest.raises(ImageInUse, match="referenced in multiple repositories"):
        planned(None, names)
    assert planned(None, names, force=True).delete
